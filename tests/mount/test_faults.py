"""A disk that fails under an enforcing guard, and errors of the guard's own, on a real mount: the caller gets what it
would get without the guard, or a clear error; never a wrong byte; and the guard says so."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guardfs.mount import libc
from tests.conftest import StartGuard, watched
from tests.support.agent import NAME, Agent, elsewhere, record
from tests.support.faulty import DAEMON, FAULTS
from tests.support.guard import ROOT, Event, Guard
from tests.support.kill_stories import fingerprint
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

HEADER = b'{"type":"session","id":"s"}\n'
APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"
TOLD = [
    "could not be staged",
    "cannot rebase branch",
    "internal error",
    "Traceback",
    "InjectedError",
    "cannot be removed",
    "only recorded",
]


def policy_in(place: Path) -> Path:
    """Enforcing, and not waiting for what a gateway may still have to say after its turn."""
    policy = place / "policy.toml"
    policy.write_text((ROOT / "policy/openclaw.toml").read_text().replace('linger = "5s"', 'linger = "0s"'))
    return policy


class Faulty:
    """An enforcing guard with a switch for its faults, and a transcript for each test."""

    def __init__(self, place: Path) -> None:
        self.switch = place / "faults"
        self.say("")
        directory = place / "sessions"
        directory.mkdir()
        self.guard = Guard(
            directory,
            place / "beside",
            "--policy",
            str(policy_in(place)),
            "--mode",
            "enforce",
            command=[sys.executable, "-m", "tests.support.faulty"],
            env={DAEMON: "tests.support.disk_daemon", FAULTS: str(self.switch)},
        )
        self.guard.expected = TOLD
        self.number = 0

    def say(self, text: str) -> None:
        new = self.switch.with_suffix(".new")
        new.write_text(text)
        new.rename(self.switch)

    @contextmanager
    def fault(self, text: str) -> Iterator[None]:
        self.say(text)
        try:
            yield
        finally:
            self.say("")

    def told(self, op: str, change: str = "") -> list[Event]:
        """Events of that kind, since the transcript was made, once there are some."""

        def wanted(event: Event) -> bool:
            return bool(event["op"] == op and event.get("change", "") == change)

        return wait_for(lambda: self.guard.events(wanted)[self.before[op] :], f"an event {op} {change}", 10)

    def begin(self) -> Agent:
        """A fresh transcript, and an agent with a fence on it."""
        events = self.guard.settle()
        self.before = {op: sum(event["op"] == op for event in events) for op in ("unstaged", "error")}
        self.before["branch"] = 0
        self.number += 1  # errors on one transcript are counted
        self.path = self.guard.directory / f"fb87a1b2-0000-4000-8000-{self.number:012}.jsonl"
        self.path.write_bytes(HEADER)
        agent = Agent(self.guard.directory)
        agent.path, agent.lock = self.path, self.path.with_name(f"{self.path.name}.lock")
        agent.begin()
        return agent

    def end(self, agent: Agent) -> list[str]:
        """The turn ends, and what waited for it is in the file: the ids there, each once and whole."""
        agent.end()
        wait_for(lambda: not self.guard.status()["branches"]["open"], "branches to be rebased")
        found = [json.loads(line)["id"] for line in self.path.read_bytes().splitlines()]
        assert len(found) == len(set(found)), found
        return found


@pytest.fixture(scope="module")
def faulty(module_place: Path) -> Iterator[Faulty]:
    made = Faulty(module_place)
    with watched([made.guard]):
        try:
            made.guard.start()
            yield made
            made.say("")
            made.guard.stop()
        finally:
            made.guard.destroy()


TWICE = """
fd = os.open(sys.argv[1], os.O_RDWR | int(sys.argv[2]))
os.lseek(fd, 0, os.SEEK_END)
one, two, three = sys.stdin.buffer.read().splitlines(keepends=True)
os.write(fd, one)
open(sys.argv[3], 'w').write(sys.argv[4])
said = []
for line in (two, three):
    try: said.append(os.write(fd, line) == len(line))
    except OSError as error: said.append(error.errno)
open(sys.argv[3], 'w').close()
print(json.dumps(said))
"""


@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["append", "at its offset"])
@pytest.mark.parametrize(
    "fault",
    [
        "views.write.before 1 bug lasting",
        "views.write.before 1 bug",
        "file.write.after 1 bug",
        "branch.wrote.before 1 bug lasting",
        "branches.pwrite 1 ENOSPC",
        "branches.pwrite 1 EIO lasting",
        "branches.* 1 EROFS lasting",
        "branches.pwrite 1 short",
    ],
)
def test_writes_through_one_descriptor_are_kept_whole_or_refused(
    faulty: Faulty, fault: str, flags: int
) -> None:
    """The second and third write go through a descriptor of the branch that the first one has made."""
    agent = faulty.begin()
    lines = b"".join(record(name, "00000001") for name in ("one", "two", "three"))
    said = json.loads(elsewhere(TWICE, faulty.path, flags, faulty.switch, fault, data=lines))
    found = faulty.end(agent)
    assert "one" in found and found[:2] == ["s", "00000001"]
    for name, done in zip(("two", "three"), said, strict=True):
        assert name in found or done is not True, (said, found)  # what failed is there whole, or not at all
        assert done is True or errno.errorcode[done] in ("EIO", "ENOSPC", "EROFS")
    if not fault.endswith("short") and said == [True, True]:
        assert faulty.told("error" if "bug" in fault else "unstaged")


def test_a_read_of_what_is_on_a_branch_is_an_error_rather_than_wrong(faulty: Faulty) -> None:
    agent = faulty.begin()
    seen = elsewhere(
        """
fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
os.write(fd, sys.stdin.buffer.read())
open(sys.argv[2], 'w').write('file.read.before 1 bug lasting')
try: said = os.pread(fd, 4096, 0).decode()
except OSError as error: said = error.errno
open(sys.argv[2], 'w').close()
print(json.dumps([said, os.pread(fd, 4096, 0).decode()]))
""",
        faulty.path,
        faulty.switch,
        data=record("mine", "00000001"),
    )
    broken, whole = json.loads(seen)
    assert broken == errno.EIO
    assert whole.encode().startswith(HEADER) and "mine" in whole
    assert faulty.end(agent) == ["s", "00000001", "mine"]


ANEW = HEADER + record("anew", None)
ACTS: dict[str, tuple[str, Callable[[list[str]], bool]]] = {
    "append": ("open(path, 'ab', buffering=0).write(data)", lambda found: found == ["s", "00000001", "anew"]),
    "rewrite": ("open(path, 'wb', buffering=0).write(data)", lambda found: found == ["s", "anew"]),
    "rename over": (
        "open(path + '.tmp', 'wb').write(data); os.rename(path + '.tmp', path)",
        lambda found: found == ["s", "anew"],
    ),
    "truncate": ("os.truncate(path, 0)", lambda found: found == []),
    "chmod": ("os.chmod(path, 0o640)", lambda found: found == ["s", "00000001"]),
}


@pytest.mark.parametrize("name", ACTS)
def test_what_the_journal_does_not_take_goes_through_and_is_told(faulty: Faulty, name: str) -> None:
    act, fits = ACTS[name]
    agent = faulty.begin()
    data = record("anew", "00000001") if name == "append" else ANEW
    with faulty.fault("branches.* 1 EROFS lasting"):
        elsewhere(f"path, data = sys.argv[1], sys.stdin.buffer.read()\n{act}", faulty.path, data=data)
        committed = [json.loads(line)["id"] for line in faulty.path.read_bytes().splitlines()]
        assert fits(committed), committed
    if name != "chmod":  # which needs no journal
        assert faulty.told("unstaged")
    assert fits(faulty.end(agent))


def test_after_repeated_internal_errors_a_transcript_is_only_recorded(faulty: Faulty) -> None:
    agent = faulty.begin()
    with faulty.fault("judge.rule.before 1 bug lasting"):
        for number in range(3):
            elsewhere(APPEND, faulty.path, data=record(f"through{number}", "00000001"))
    (given_up,) = faulty.told("branch", "given up")
    assert given_up["errors"] >= 3 and given_up["path"] == faulty.path.name
    status = faulty.guard.status()
    assert status["branches"]["given_up"] == 1 and status["internal_errors"]["count"] >= 3
    faulty.guard.wait_said("internal errors; from now on it is only recorded")
    elsewhere(APPEND, faulty.path, data=record("recorded", "00000001"))
    assert b"recorded" in faulty.path.read_bytes(), "it was staged"
    agent.end()
    agent = faulty.begin()
    elsewhere(APPEND, faulty.path, data=record("staged", "00000001"))
    assert b"staged" not in faulty.path.read_bytes(), "another one is not guarded any more"
    assert faulty.end(agent) == ["s", "00000001", "staged"]


@pytest.fixture
def small_state(place: Path) -> Iterator[Path]:
    """A file system of 256 KiB for a guard's state."""
    path = place / "small"
    path.mkdir()
    libc.mount("none", os.fsencode(path), "tmpfs", 0, "size=256k")
    yield path
    libc.unmount(os.fsencode(path), libc.MNT_DETACH)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
        while True:
            file.write(bytes(4096))
    assert caught.value.errno == errno.ENOSPC
    return ballast


@pytest.mark.parametrize("why", ["full", "no directory"])
def test_a_state_directory_that_takes_nothing_stops_nobody(
    start_guard: StartGuard, small_state: Path, place: Path, why: str
) -> None:
    state = small_state / "state"
    guard = start_guard("--policy", str(policy_in(place)), "--mode", "enforce", "--state", str(state))
    guard.expected = [*TOLD, "audit.head", "tokens"]
    path = guard.directory / NAME
    path.write_bytes(HEADER)
    agent = Agent(guard.directory)
    agent.begin()
    if why == "full":
        ballast = fill(small_state)
    else:
        (state / "branches").touch()
    elsewhere(APPEND, path, data=record("through", "00000001"))
    assert b"through" in path.read_bytes()
    if why == "full":
        ballast.unlink()
    else:
        (state / "branches").unlink()
    event: Event = guard.wait_event(lambda event: event["op"] == "unstaged", "the guard to say so")
    assert event["path"] == NAME and event["error"] in ("No space left on device", "File exists")
    assert guard.status()["branches"]["passed"] >= 1
    assert guard.status()["internal_errors"]["count"] == 0
    agent.end()
    agent.begin()
    before = fingerprint(path.stat())
    elsewhere(APPEND, path, data=record("staged", "through"))  # as soon as there is room again
    assert fingerprint(path.stat()) == before
    agent.end()
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased")
    assert b"staged" in path.read_bytes()
