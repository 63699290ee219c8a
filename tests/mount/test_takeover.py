"""A daemon dies, hangs, or is exchanged, and the next one takes over the same connection."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guardfs.audit.verify import verify
from tests.conftest import StartGuard
from tests.support.agent import NAME, Agent, elsewhere, record
from tests.support.clumsy_daemon import CLUMSY
from tests.support.faulty import DAEMON
from tests.support.guard import GUARDFS, ROOT, Guard, environment
from tests.support.mounts import mounts_below
from tests.support.running import guardfs
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"
DEATHS = ["the daemon ended with signal SIGKILL", r"signal SIGKILL\)"]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/audit-log.schema.json").read_text()))


def restarts(guard: Guard) -> int:
    found: int = guard.status()["daemon"]["restarts"]
    return found


def succeeded(guard: Guard, times: int) -> None:
    """Wait until the daemon was exchanged so many times."""
    wait_for(lambda: restarts(guard) == times, "another daemon")
    said = wait_for(
        lambda: guard.events(lambda event: event["op"] == "takeover" and event["number"] == times),
        "its event",
    )
    SCHEMA.validate(said[0])
    guard.daemon = guard.status()["daemon"]["pid"]


def kill(guard: Guard, times: int = 1) -> None:
    """The daemon dies, and another one takes over."""
    os.kill(guard.daemon, signal.SIGKILL)
    succeeded(guard, times)


def takeovers(guard: Guard) -> list[dict[str, Any]]:
    found = [event for event in guard.settle() if event["op"] == "takeover"]
    for event in found:
        SCHEMA.validate(event)
    return found


def fingerprint(path: Path) -> tuple[int, ...]:
    st = path.stat()
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


@pytest.fixture
def guard(start_guard: StartGuard, place: Path) -> Iterator[Guard]:
    text = (ROOT / "policy/openclaw.toml").read_text()
    policy = place / "policy.toml"
    policy.write_text(text.replace('linger = "5s"', 'linger = "0s"'))
    guard = start_guard("--policy", str(policy), "--mode", "enforce", "--max-deaths", "100")
    guard.expected = [*DEATHS]
    yield guard
    if guard.process is not None and guard.process.poll() is None:
        assert guard.status()["internal_errors"]["count"] == 0
        assert not [event for event in takeovers(guard) if "lost" in event]


def meanwhile(guard: Guard, act: Callable[[], object]) -> threading.Thread:
    """Call *act* while the daemon is stopped, so that its request is read by none, or by one who then dies."""
    os.kill(guard.daemon, signal.SIGSTOP)
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_open_files_device_and_log_go_on(guard: Guard) -> None:
    directory = guard.directory
    device = directory.stat().st_dev
    (directory / "sub").mkdir()
    (directory / "sub/deep.txt").write_text("deep")
    appending = os.open(directory / "a.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    both = os.open(directory / "b.txt", os.O_RDWR | os.O_CREAT, 0o600)
    nameless = os.open(directory / "gone.txt", os.O_RDWR | os.O_CREAT)
    os.write(appending, b"{}\n")
    os.write(both, b"both")
    os.write(nameless, b"nameless")
    os.unlink(directory / "gone.txt")
    os.rename(directory / "b.txt", directory / "c.txt")
    listing = os.open(directory, os.O_RDONLY)
    inodes = [os.fstat(fd).st_ino for fd in (appending, both, nameless, listing)]
    for times in (1, 2):
        kill(guard, times)
        assert os.write(appending, b"[]\n") == 3
        assert os.pwrite(both, b"%d" % times, 0) == 1
        assert os.pread(nameless, 20, 0).startswith(b"nameless"[: 8 * times])
        os.ftruncate(nameless, 8)
    assert [os.fstat(fd).st_ino for fd in (appending, both, nameless, listing)] == inodes
    assert sorted(os.listdir(listing)) == ["a.jsonl", "c.txt", "sub"]
    assert os.fstat(nameless).st_nlink == 0
    for fd in (appending, both, nameless, listing):
        os.close(fd)
    assert (directory / "a.jsonl").read_bytes() == b"{}\n[]\n[]\n"
    assert (directory / "c.txt").read_bytes() == b"2oth"
    assert (directory / "sub/deep.txt").read_text() == "deep"
    assert directory.stat().st_dev == device
    events = takeovers(guard)
    assert [event["number"] for event in events] == [1, 2]
    assert {event["cause"] for event in events} == {"signal SIGKILL"}
    assert events[0]["restored"]["handles"] >= 3 and events[0]["took_ms"] > 0
    status = guard.status()["daemon"]
    assert status["restarts"] == 2 and status["restart_cause"] == "signal SIGKILL"
    assert "restarted" in guardfs("status", directory).stdout
    shown = guardfs("tail", "--audit", guard.audit, "--op", "takeover").stdout
    assert shown.count("taken over by") == 2
    guard.stop()
    report = verify(str(guard.audit), str(guard.state / "audit.head"))
    assert report.ok, report


def test_calls_that_nobody_read_or_answered_are_answered(guard: Guard) -> None:
    path = guard.directory / "a.jsonl"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"before\n")
    answers: list[object] = []
    threads = [
        meanwhile(guard, act)
        for act in (
            lambda: answers.append(os.write(fd, b"meanwhile\n")),
            lambda: answers.append(path.read_bytes()[:7]),
            lambda: answers.append((guard.directory / "made").mkdir()),  # type: ignore[func-returns-value]
            lambda: answers.append(os.stat(guard.directory / "a.jsonl").st_ino),
        )
    ]
    kill(guard)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(answers) == 4 and b"before\n" in answers and 10 in answers
    os.close(fd)
    assert path.read_bytes() == b"before\nmeanwhile\n"
    assert (guard.directory / "made").is_dir()


def test_a_fence_and_a_branch_go_on(guard: Guard) -> None:
    """The owner sees nothing, and the new daemon rebases what another process wrote, before and after."""
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    before = fingerprint(path)
    foreign = os.open(path, os.O_RDONLY)
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    kill(guard, 1)
    assert guard.status()["fences"]["open"] == 1 and guard.status()["branches"]["open"] == 1
    assert fingerprint(path) == before
    elsewhere(APPEND, path, data=record("foreign2", "foreign1"))
    path.chmod(0o600)
    elsewhere("os.chmod(sys.argv[1], 0o640)", path)
    kill(guard, 2)
    assert fingerprint(path)[:4] == before[:4]
    agent.delta()
    kill(guard, 3)
    agent.end()
    os.close(foreign)
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased")
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [each["id"] for each in found] == ["s", "00000001", "00000002", "foreign1", "foreign2"]
    assert [each.get("parentId") for each in found[2:]] == ["00000001", "00000002", "foreign1"]
    assert not guard.events(lambda event: event["op"] == "incident" and event["outcome"] == "lost")
    tokens = {event["token"] for event in guard.events() if event["op"] == "fence"}
    assert len(tokens) == 1


def test_a_transcript_that_was_renamed_away_under_its_owner_stays_its(guard: Guard) -> None:
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    before = fingerprint(path)
    elsewhere("os.rename(sys.argv[1], sys.argv[1] + '.reset.T')", path)
    kill(guard)
    assert fingerprint(path) == before
    agent.delta()
    agent.end()
    wait_for(lambda: not guard.status()["branches"]["ghosts"], "the file to have one name")
    assert not path.exists()
    assert b"00000002" in path.with_name(f"{NAME}.reset.T").read_bytes()


def test_an_owner_that_ends_in_between_loses_its_fence(guard: Guard) -> None:
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    code = (
        "import sys, pathlib\nfrom tests.support.agent import Agent\nAgent(pathlib.Path(sys.argv[1])).begin()\n"
        "print('begun', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, guard.directory],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment(),
    ) as owner:  # fmt: skip
        assert owner.stdout is not None and owner.stdout.readline() == b"begun\n"
        wait_for(lambda: guard.status()["fences"]["open"], "its fence")
        elsewhere(APPEND, path, data=record("foreign1", "00000001"))
        os.kill(guard.daemon, signal.SIGSTOP)
        owner.kill()
        owner.wait()
        kill(guard)
    wait_for(lambda: not guard.status()["fences"]["open"], "its fence to close")
    wait_for(lambda: b"foreign1" in path.read_bytes(), "the branch to be rebased")


def test_the_mode_that_was_set_and_what_was_claimed_hold(guard: Guard) -> None:
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    os.setxattr(path, "user.guardfs.lane", b"nightly")
    assert guardfs("mode", "record", guard.directory).returncode == 0
    guard.expected.append("mode record")
    kill(guard)
    assert guard.status()["policy"]["mode"] == "record"
    assert guard.status()["policy"]["mode_from"]["source"] == "command"
    assert os.getxattr(path, "user.guardfs.lane") == b"nightly"


def test_changes_below_the_mount_are_seen_afterwards(guard: Guard, place: Path) -> None:
    """Nobody watched for a while, so the kernel is told to believe nothing that it was told before."""
    path, absent = guard.directory / "config.txt", guard.directory / "later.txt"
    path.write_text("old")
    assert path.read_text() == "old" and not absent.exists()
    below = place / "below"
    below.mkdir()
    code = (
        "import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.unshare(0x20000) == 0\n"
        "assert libc.mount(None, b'/', None, 1 << 14 | 1 << 18, None) == 0\n"
        "assert libc.umount2(os.fsencode(sys.argv[1]), 2) == 0\n"
        "open(sys.argv[1] + '/config.txt', 'w').write('new')\nopen(sys.argv[1] + '/later.txt', 'w').write('here')\n"
    )
    os.kill(guard.daemon, signal.SIGSTOP)
    subprocess.run([sys.executable, "-c", code, guard.directory], check=True)
    kill(guard)
    assert wait_for(lambda: path.read_text() == "new", "the new text")
    assert wait_for(absent.exists, "the new name")


def test_a_daemon_that_hangs_is_replaced(new_guard: StartGuard) -> None:
    guard = new_guard("--watchdog", "0.5").start()
    guard.expected = [*DEATHS, "has not answered for 0.5 s"]
    path = guard.directory / "a.jsonl"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"before\n")
    os.kill(guard.daemon, signal.SIGSTOP)
    assert os.write(fd, b"after\n") == 6
    os.close(fd)
    succeeded(guard, 1)
    assert path.read_bytes() == b"before\nafter\n"
    (event,) = takeovers(guard)
    assert event["cause"] == "no answer for 0.5 s"
    guard.stop()


def test_a_kernel_that_sends_nothing_again_gets_a_new_mount(new_guard: StartGuard) -> None:
    guard = new_guard("--max-deaths", "100", env={"GUARDFS_NO_RESEND": "1"}).start()
    guard.expected = [*DEATHS, "mounted anew"]
    assert not guard.status()["daemon"]["can_resend"]
    path = guard.directory / "a.jsonl"
    path.write_text("kept\n")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    done = guardfs("upgrade", guard.directory)
    assert done.returncode == 2 and "not exchanged" in done.stderr
    os.kill(guard.daemon, signal.SIGKILL)
    guard.wait_said("mounted anew by the daemon")
    with pytest.raises(OSError) as caught:
        os.write(fd, b"lost\n")
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    with pytest.raises(OSError):
        os.close(fd)
        raise OSError
    assert path.read_text() == "kept\n"
    with path.open("a") as file:
        file.write("more\n")
    succeeded(guard, 1)
    assert len(mounts_below(guard.directory)) == 1
    (event,) = takeovers(guard)
    assert event["anew"] and not event["orderly"]
    guard._idle_descriptors += 3
    guard.stop()


class Clumsy:
    """A guard whose daemons die at once while `switch` is there."""

    def __init__(self, new_guard: StartGuard, place: Path, *options: str) -> None:
        self.switch = place / "clumsy"
        self.guard = new_guard(
            "--max-deaths",
            "3",
            *options,
            command=[sys.executable, "-m", "tests.support.faulty"],
            env={DAEMON: "tests.support.clumsy_daemon", CLUMSY: str(self.switch)},
        )
        self.guard.expected = [*DEATHS, "the daemon ended at start with status 7", "died within"]


def test_too_many_deaths_leave_the_plain_directory(new_guard: StartGuard, place: Path) -> None:
    """What waited on a branch is in the file then, and the log says what happened."""
    policy = place / "policy.toml"
    policy.write_text((ROOT / "policy/openclaw.toml").read_text())
    clumsy = Clumsy(new_guard, place, "--policy", str(policy), "--mode", "enforce")
    guard = clumsy.guard.start()
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    Agent(guard.directory).begin()
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    clumsy.switch.touch()
    os.kill(guard.daemon, signal.SIGKILL)
    assert guard.process is not None
    assert guard.process.wait(60) == 1
    assert "IS UNGUARDED" in guard.wait_said("3 daemons have died")
    assert not mounts_below(guard.directory)
    assert path.read_bytes().count(b"foreign1") == 1
    (event,) = guard.events(lambda event: event["op"] == "unguarded")
    SCHEMA.validate(event)
    assert event["deaths"] == 3
    assert guard.events(lambda event: event["op"] == "recovered")
    assert verify(str(guard.audit), str(guard.state / "audit.head")).ok


@pytest.mark.parametrize("choice", ["open", "closed"])
def test_the_command_goes_on_unguarded_or_is_stopped(place: Path, choice: str) -> None:
    directory, switch, beside = place / "sessions", place / "clumsy", place / "beside"
    directory.mkdir()
    beside.mkdir()
    script = 'trap "echo told; exit 5" TERM; touch begun; while [ ! -e end ]; do sleep 0.05; done; echo ended; exit 4'
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.faulty", "run", "--sessions", directory, "--force",
         "--state", beside / "state", "--audit", beside / "audit.jsonl", "--max-deaths", "2",
         "--on-failure", choice, "--", "sh", "-c", script],
        env=environment(**{DAEMON: "tests.support.clumsy_daemon", CLUMSY: str(switch)}),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        try:
            wait_for(lambda: (place / "begun").exists() or run.poll() is not None, "the command")
            assert run.poll() is None, run.communicate()
            daemon = json.loads(os.getxattr(directory, "user.guardfs.status"))["daemon"]["pid"]
            switch.touch()
            os.kill(daemon, signal.SIGKILL)
            if choice == "open":
                wait_for(lambda: not mounts_below(directory), "the mount to be gone")
                (directory / "plain").write_text("usable")
                (place / "end").touch()
            out, said = run.communicate(timeout=60)
        finally:
            run.kill()
    assert "2 daemons have died" in said
    if choice == "open":
        assert run.returncode == 4 and out == "ended\n"
    else:
        assert run.returncode == 5 and out == "told\n" and "nobody gets at" in said
    assert not mounts_below(directory)


def test_an_upgrade_is_noticed_by_nobody(guard: Guard) -> None:
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    before = fingerprint(path)
    done = guardfs("upgrade", guard.directory)
    assert done.returncode == 0 and "has taken over from" in done.stdout, done
    facts = json.loads(guardfs("upgrade", guard.directory, "--json").stdout)
    assert facts["after"]["pid"] == guard.status()["daemon"]["pid"] != facts["before"]["pid"] != guard.daemon
    guard.daemon = facts["after"]["pid"]
    assert fingerprint(path) == before
    agent.delta()
    agent.end()
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased")
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == [
        "s",
        "00000001",
        "00000002",
        "foreign1",
    ]
    assert [(event["cause"], event["orderly"]) for event in takeovers(guard)] == [("upgrade", True)] * 2
    assert "ended with" not in guard.said()


def test_an_upgrade_of_what_is_no_guard_is_one_line(place: Path) -> None:
    done = guardfs("upgrade", place)
    assert (
        done.returncode == 2
        and done.stderr == f"guardfs: {place}: not guarded; `guardfs status` lists the guarded directories\n"
    )
    assert subprocess.run([*GUARDFS, "upgrade"], capture_output=True, env=environment()).returncode == 2


def test_where_nothing_can_be_read_the_directory_is_mounted_anew(new_guard: StartGuard) -> None:
    """And what waited on a branch goes into the file, as at any mount."""
    guard = new_guard("--policy", "openclaw", "--mode", "enforce", "--max-deaths", "100").start()
    guard.expected = [*DEATHS, "nothing of the daemon before it can be read", "mounted anew"]
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    Agent(guard.directory).begin()
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    assert guard.status()["branches"]["open"] == 1
    memory, *_ = [
        fd for fd in Path(f"/proc/{guard.daemon}/fd").iterdir() if "guardfs-memory" in os.readlink(fd)
    ]
    with memory.open("r+b") as file:
        file.write(bytes(8))
    os.kill(guard.daemon, signal.SIGKILL)
    guard.wait_said("mounted anew by the daemon")
    succeeded(guard, 2)
    assert path.read_bytes().count(b"foreign1") == 1
    (event,) = takeovers(guard)
    assert event["anew"] and event["number"] == 2
    guard._idle_descriptors += 3
    guard.stop()
