"""`guardfs mode` and the control channel, on a real mount."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.agent import NAME, Agent, elsewhere, record
from tests.support.commands import guardfs
from tests.support.guard import Event, Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"
APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"
CONTROL = "user.guardfs.control"
HEADER = b'{"type":"session","id":"s"}\n'


@pytest.fixture
def policy(place: Path) -> Path:
    path = place / "policy.toml"
    path.write_text(POLICY.read_text().replace('linger = "5s"', 'linger = "0s"'))
    return path


@pytest.fixture
def start(start_guard: StartGuard, policy: Path) -> Callable[..., Guard]:
    def made(*options: str) -> Guard:
        guard = start_guard("--policy", str(policy), *options)
        guard.expected.append("WARNING: mode .* set by")
        (guard.directory / NAME).write_bytes(HEADER)
        return guard

    return made


@pytest.fixture
def guard(start: Callable[..., Guard]) -> Iterator[Guard]:
    guard = start("--mode", "enforce")
    yield guard
    assert guard.status()["internal_errors"]["count"] == 0


def mode(guard: Guard, word: str) -> None:
    done = guardfs("mode", word, guard.directory)
    assert done.returncode == 0 and not done.stderr, done
    assert guard.status()["policy"]["mode"] == word


def foreign(guard: Guard, name: str) -> None:
    elsewhere(APPEND, guard.directory / NAME, data=record(name, "00000001"))


def fingerprint(path: Path) -> tuple[int, ...]:
    st = path.stat()
    return st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def verdicts(guard: Guard) -> list[str]:
    return [e["verdict"] for e in guard.settle() if e["op"] == "write" and e["writer"]["tgid"] != os.getpid()]


def modes(guard: Guard) -> list[Event]:
    return [event for event in guard.settle() if event["op"] == "mode"]


def rebased(guard: Guard) -> None:
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased")


def test_the_mode_is_shown_set_and_told_with_who_set_it(guard: Guard) -> None:
    shown = guardfs("mode", guard.directory)
    assert (shown.returncode, shown.stdout) == (0, f"{guard.directory}: enforce, as --mode says\n")
    done = guardfs("mode", "record", guard.directory)
    assert done.returncode == 0 and "record, set by user 0" in done.stdout and "was enforce" in done.stdout
    source = guard.status()["policy"]["mode_from"]
    assert source["source"] == "command" and source["uid"] == os.geteuid()
    (event,) = modes(guard)
    assert (event["mode"], event["before"], event["from"]) == ("record", "enforce", "command")
    assert event["uid"] == os.geteuid() and event["by"]["tgid"] == source["tgid"]
    facts = json.loads(guardfs("mode", "policy", guard.directory, "--json").stdout)
    assert (facts["mode"], facts["before"], facts["mode_from"]) == ("enforce", "record", {"source": "option"})


def test_a_fence_that_was_open_is_enforced_to_its_end(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    foreign(guard, "early")
    before = fingerprint(path)
    mode(guard, "record")
    assert guard.status()["policy"]["old_fences"] == 1
    foreign(guard, "late")
    assert fingerprint(path) == before
    agent.delta()
    agent.end()
    rebased(guard)
    assert guard.status()["policy"]["old_fences"] == 0
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()][-2:] == ["early", "late"]
    agent.begin()
    before = fingerprint(path)
    foreign(guard, "after")
    assert fingerprint(path) != before
    assert verdicts(guard) == ["stage", "stage", "allow"]
    agent.end()


def test_a_fence_that_was_open_while_only_recording_is_recorded_to_its_end(
    start: Callable[..., Guard],
) -> None:
    guard = start("--mode", "record")
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    mode(guard, "enforce")
    before = fingerprint(path)
    foreign(guard, "passes")
    assert fingerprint(path) != before
    agent.delta()
    agent.end()
    agent.begin()
    before = fingerprint(path)
    foreign(guard, "waits")
    assert fingerprint(path) == before
    agent.end()
    rebased(guard)
    assert verdicts(guard) == ["allow", "stage"]


def test_off_puts_everything_into_the_files_and_decides_nothing(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    agent.begin()
    foreign(guard, "staged")
    assert b"staged" not in path.read_bytes()
    mode(guard, "off")
    assert b"staged" in path.read_bytes()
    before = fingerprint(path)
    foreign(guard, "passes")
    assert fingerprint(path) != before and b"passes" in path.read_bytes()
    event = [e for e in guard.settle() if e["op"] == "write"][-1]
    assert (event["rule"], event["verdict"]) == ("guardfs mode off", "allow") and "would" not in event
    checked = guardfs("status", "--check", guard.directory)
    assert checked.returncode == 1 and "switched off" in checked.stderr
    told = guardfs("status", "--check", "--json", guard.directory)
    assert (told.returncode, told.stderr) == (1, "")
    assert json.loads(told.stdout)["troubles"] == [checked.stderr.strip().removeprefix("guardfs: ")]
    assert "branches" in guardfs("status", guard.directory).stdout
    mode(guard, "enforce")
    assert guardfs("status", "--check", guard.directory).returncode == 0
    told = guardfs("status", "--check", "--json", guard.directory)
    assert json.loads(told.stdout) == {"healthy": True, "guards": [str(guard.directory)], "troubles": []}
    agent.end()


def test_off_gives_a_renamed_transcript_and_open_files_their_end(guard: Guard) -> None:
    agent, path = Agent(guard.directory), guard.directory / NAME
    archive = guard.directory / f"{NAME}.reset.2026"
    agent.begin()
    code = f"""
file = open(sys.argv[1], 'ab', buffering=0)
file.write({record("first", "00000001")!r})
print(flush=True)
sys.stdin.readline()
file.write({record("second", "first")!r})
"""
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys\n{code}", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdout.readline()
        mode(guard, "off")
        assert path.read_bytes().count(b'"first"') == 1
        writer.stdin.close()
        assert writer.wait() == 0
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()][-2:] == ["first", "second"]
    mode(guard, "enforce")
    agent.end()
    agent.begin()
    os.rename(path, archive)
    assert path.exists() and guard.status()["branches"]["ghosts"] == 1
    mode(guard, "off")
    assert not path.exists() and archive.exists() and guard.status()["branches"]["ghosts"] == 0


def test_a_changed_policy_ends_an_override_but_not_off(guard: Guard, policy: Path) -> None:
    def change(text: str) -> None:
        reloads = guard.status()["policy"]["reloads"]
        policy.write_text(policy.read_text() + f"# {text}\n")
        wait_for(lambda: guard.status()["policy"]["reloads"] > reloads, "the policy to be taken")

    mode(guard, "record")
    change("one")
    assert guard.status()["policy"]["mode"] == "enforce"
    assert [(event["mode"], event["from"]) for event in modes(guard)][-1] == ("enforce", "policy")
    mode(guard, "off")
    change("two")
    assert guard.status()["policy"]["mode"] == "off"


def test_nobody_else_may_and_nothing_of_it_is_logged_as_an_attribute(guard: Guard) -> None:
    request = b'{"do":"mode","mode":"off"}'
    guard.directory.chmod(0o777)  # what the kernel asks for attributes of a directory
    code = """
import errno
os.setgid(65534); os.setuid(65534)
found = []
for call in (lambda: os.setxattr(sys.argv[1], 'user.guardfs.control', sys.stdin.buffer.read()),
             lambda: os.getxattr(sys.argv[1], 'user.guardfs.control'),
             lambda: os.removexattr(sys.argv[1], 'user.guardfs.control')):
    try: found.append(call())
    except OSError as error: found.append(errno.errorcode[error.errno])
print(json.dumps(found))
"""
    assert json.loads(elsewhere(code, guard.directory, data=request)) == ["EPERM"] * 3
    assert guard.status()["policy"]["mode"] == "enforce"
    with pytest.raises(OSError) as none:
        os.getxattr(guard.directory, CONTROL)
    assert none.value.errno == errno.ENODATA
    mode(guard, "record")
    assert CONTROL not in os.listxattr(guard.directory)
    assert [event for event in guard.settle() if event["op"] == "xattr"] == []


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"x",
        b"{}",
        b"\xff",
        b'{"do":"dance"}',
        b'{"do":"mode"}',
        b'{"do":"mode","mode":"loud"}',
        b'{"do":"mode","mode":"off","more":1}',
        b'{"do":"flush","transcript":7}',
        b'{"do":"flush","transcript":"*"}',
        b"[" * 60_000,
    ],
)
def test_a_bad_request_is_einval_and_changes_nothing(module_guard: Guard, request_: bytes) -> None:
    with pytest.raises(OSError) as caught:
        os.setxattr(module_guard.directory, CONTROL, request_)
    assert caught.value.errno == errno.EINVAL
    status = module_guard.status()
    assert status["policy"]["mode"] == "record" and status["internal_errors"]["count"] == 0
