"""Start, stop, `run`, a second guard, a busy mount."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.guard import GUARDFS, Guard
from tests.support.mounts import mounts_below
from tests.support.running import guardfs
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_loses_nothing(guard: Guard, number: int) -> None:
    path = guard.directory / "a.jsonl"
    with path.open("ab", buffering=0) as file:
        for line in range(300):
            file.write(b'{"number":%d}\n' % line)
    assert guard.process is not None
    guard.process.send_signal(number)
    assert guard.process.wait(60) == 0
    assert not mounts_below(guard.directory)
    assert len(path.read_bytes().splitlines()) == 300
    events = guard.events()
    assert sum(event["bytes"] for event in events if event["op"] == "write") == path.stat().st_size
    assert [event["op"] for event in events if event["op"] in ("start", "stop")] == ["start", "stop"]
    assert events[-1]["op"] == "stop"
    guard.check_said()


def test_unmount_command(guard: Guard) -> None:
    (guard.directory / "a.jsonl").write_text("x\n")
    done = guardfs("unmount", guard.directory, "--force")
    assert (done.returncode, done.stderr) == (0, "")
    assert guard.process is not None
    assert guard.process.wait(60) == 0
    assert not mounts_below(guard.directory)
    assert guard.events()[-1]["op"] == "stop"
    guard.check_said()


def test_the_directory_is_the_same_before_during_and_after(start_guard: StartGuard, place: Path) -> None:
    directory = place / "kept"
    directory.mkdir(mode=0o710)
    (directory / "a.jsonl").write_bytes(b"one\n")
    (directory / "sub").mkdir()
    os.symlink("a.jsonl", directory / "link")
    os.utime(directory / "a.jsonl", ns=(1, 1_234_567_890_123_456_789))

    def seen() -> list[tuple[object, ...]]:
        return [
            (
                str(path),
                info.st_ino,
                info.st_mode,
                info.st_uid,
                info.st_size,
                info.st_mtime_ns,
                info.st_ctime_ns,
            )
            for path in [directory, *sorted(directory.rglob("*"))]
            for info in [path.lstat()]
        ]

    before = seen()
    guard = start_guard(directory=directory)
    assert seen() == before
    guard.stop()
    assert seen() == before


@pytest.mark.parametrize(
    "name", [b"with space", b"new\nline", b"back\\slash", b"comma,fd=3", "ä漢".encode(), b"not-utf8-\xff\xfe"]
)
def test_a_directory_with_an_odd_name(start_guard: StartGuard, place: Path, name: bytes) -> None:
    directory = place / os.fsdecode(name)
    directory.mkdir()
    guard = start_guard(directory=directory)
    (directory / "a.jsonl").write_text("x\n")
    guard.wait_event(lambda event: event["op"] == "write" and event["path"] == "a.jsonl")
    guard.stop()


def test_ready_is_told_to_systemd_once_the_directory_answers(new_guard: StartGuard, place: Path) -> None:
    address = place / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(60)
        guard = new_guard(env={"NOTIFY_SOCKET": str(address)})
        guard.launch()
        assert b"READY=1" in listener.recv(1000)
        assert guard.status()["mountpoint"] == str(guard.directory)
        assert guard.unmount() == 0
        assert b"STOPPING=1" in listener.recv(1000)


# ---- run


def run(guard: Guard, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*GUARDFS, "run", "--sessions", str(guard.directory), *guard.options, "--", *words],
        env=guard.env,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + 9), ("kill -15 $$", 128 + 15)]
)
def test_run_exits_as_its_command(new_guard: StartGuard, script: str, status: int) -> None:
    guard = new_guard()
    child = run(guard, "sh", "-c", f"echo hello >> {guard.directory}/r.jsonl; {script}")
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (status, b""), err
    assert not mounts_below(guard.directory)
    (event,) = guard.events(lambda event: event["op"] == "write" and event["path"] == "r.jsonl")
    assert event["bytes"] == 6
    assert (guard.directory / "r.jsonl").read_text() == "hello\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT"])
def test_run_passes_signals_on(new_guard: StartGuard, name: str) -> None:
    guard = new_guard()
    child = run(guard, "sh", "-c", f"trap 'exit 33' {name}; echo ready; while :; do sleep 0.02; done")
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(getattr(signal, f"SIG{name}"))
    _, err = child.communicate(timeout=60)
    assert child.returncode == 33, err
    assert not mounts_below(guard.directory)


def test_run_of_a_command_that_is_not_there(new_guard: StartGuard) -> None:
    guard = new_guard()
    child = run(guard, "no-such-command-anywhere")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert b"no-such-command-anywhere: command not found" in err and b"Traceback" not in err
    assert not mounts_below(guard.directory)


def test_run_outlives_an_unmount_by_others(new_guard: StartGuard) -> None:
    guard = new_guard()
    child = run(guard, "sh", "-c", "echo ready; read line; exit 5")
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert guardfs("unmount", guard.directory, "--force").returncode == 0
    assert child.stderr is not None
    wait_for(lambda: not mounts_below(guard.directory), "the unmount")
    assert child.poll() is None
    _, err = child.communicate(b"go on\n", timeout=60)
    assert child.returncode == 5, err


# ---- a second guard


def refused(directory: Path, place: Path, *options: str) -> str:
    """Try to mount; the one line that says why not."""
    done = guardfs(
        "mount",
        directory,
        "--force",
        "--state",
        place / "second",
        "--audit",
        place / "second.jsonl",
        *options,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("guardfs")
    return lines[0]


def test_a_second_guard_on_the_same_path(guard: Guard, place: Path) -> None:
    assert "guarded already" in refused(guard.directory, place)
    assert len(mounts_below(guard.directory)) == 1


@pytest.fixture
def bound(place: Path) -> Iterator[tuple[Path, Path]]:
    """A directory, and another path to it by a bind mount made before any guard."""
    directory, other = place / "one", place / "other"
    directory.mkdir()
    other.mkdir()
    subprocess.run(["mount", "--bind", directory, other], check=True)
    yield directory, other
    subprocess.run(["umount", other], check=True)


def test_a_second_guard_through_a_bind_mount(
    start_guard: StartGuard, bound: tuple[Path, Path], place: Path
) -> None:
    directory, other = bound
    start_guard(directory=directory)
    assert "another guard holds this directory" in refused(other, place)
    assert mounts_below(other) == [other]


def test_a_guard_inside_a_guarded_directory(guard: Guard, place: Path) -> None:
    (guard.directory / "inner").mkdir()
    assert "inside the guarded directory" in refused(guard.directory / "inner", place)


def test_a_second_guard_while_the_daemon_alone_holds_the_first(guard: Guard, place: Path) -> None:
    guard.expected = ["the supervisor is gone"]
    assert guard.process is not None
    guard.process.kill()
    guard.process.wait()
    assert "guarded already" in refused(guard.directory, place)
    assert guardfs("unmount", guard.directory, "--force").returncode == 0
    assert not mounts_below(guard.directory)


# ---- busy


def test_a_busy_mount_is_detached_and_its_holder_named(guard: Guard) -> None:
    (guard.directory / "b.jsonl").write_text("before\n")
    holder = subprocess.Popen(
        ["sh", "-c", "exec 5>>b.jsonl; cd /; echo open; read line; echo late >&5"],
        cwd=guard.directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == b"open\n"
    assert guard.process is not None
    guard.process.send_signal(signal.SIGTERM)
    line = guard.wait_said("busy, held by")
    wait_for(lambda: not mounts_below(guard.directory), "the detached mount to be out of sight")
    holder.communicate(b"\n", timeout=60)  # what it writes now still goes to the file
    assert f"sh[{holder.pid}]" in line
    assert f"[{guard.daemon}]" not in line, "the guard itself is no holder"
    assert guard.process.wait(60) == 0
    wait_for(lambda: not os.path.exists(f"/proc/{guard.daemon}"), "the daemon to leave with the last user")
    assert (guard.directory / "b.jsonl").read_text() == "before\nlate\n"
    guard.check_said()


# ---- the log's file


def test_sighup_begins_a_new_file_after_a_rotation_by_others(guard: Guard) -> None:
    (guard.directory / "a.jsonl").write_text("one\n")
    guard.settle()
    moved = guard.audit.with_suffix(".moved")
    guard.audit.rename(moved)
    assert guard.process is not None
    guard.process.send_signal(signal.SIGHUP)
    wait_for(guard.audit.exists, "a new log file")
    (guard.directory / "b.jsonl").write_text("two\n")
    guard.wait_event(lambda event: event["op"] == "write" and event["path"] == "b.jsonl")
    assert oct(guard.audit.stat().st_mode & 0o777) == "0o600"


def test_mounts_from_a_working_directory_that_is_the_one_to_guard(new_guard: StartGuard) -> None:
    guard = new_guard()
    words = ["run", "--sessions", ".", *guard.options, "--", "sh", "-c", "echo x > c.jsonl"]
    child = subprocess.Popen(
        [*GUARDFS, *words],
        cwd=guard.directory,
        env=guard.env,
        stderr=subprocess.PIPE,
    )
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert guard.events(lambda event: event["op"] == "write" and event["path"] == "c.jsonl")
