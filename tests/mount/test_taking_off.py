"""What a guard takes off at its end: its own mount, and nothing else, whatever happens around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guardfs.mount import device, libc
from tests.conftest import StartGuard
from tests.support.guard import GUARDFS, Guard, environment
from tests.support.mounts import mounts_below
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


def test_the_file_system_below_stays_when_the_guard_was_detached_by_others(
    place: Path, start_guard: StartGuard
) -> None:
    volume = place / "volume"
    volume.mkdir()
    libc.mount("none", os.fsencode(volume), "tmpfs", 0, "size=1m")
    try:
        (volume / "kept.jsonl").write_text("kept\n")
        guard = start_guard(directory=volume)
        guard.expected = ["busy", "stays until"]
        with subprocess.Popen(["sleep", "600"], cwd=volume) as user:
            try:
                device.unmount(str(volume), lazy=True)
                assert guard.process is not None
                guard.process.send_signal(signal.SIGTERM)
                guard.process.wait(60)
                assert (volume / "kept.jsonl").read_text() == "kept\n"
                assert [entry.fstype for entry in device.mounts() if entry.path == str(volume)] == ["tmpfs"]
            finally:
                user.kill()
        wait_for(lambda: not os.path.exists(f"/proc/{guard.daemon}"), "the daemon to end with its last user")
    finally:
        libc.unmount(os.fsencode(volume), libc.MNT_DETACH)


@pytest.mark.parametrize("content", [b"[" * 5000, b'"\xff\xfe"', b"", b'{"pid": "x"}', b"\0" * 100])
def test_a_lock_file_of_any_content_does_not_keep_the_mount(
    start_guard: StartGuard, place: Path, content: bytes
) -> None:
    guard = start_guard("--timeout", "2", quiet=True)
    guard.expected = ["unmounting although"]
    (guard.directory / "x.jsonl.lock").write_bytes(content)
    (guard.directory / "y.jsonl.lock").mkdir()
    os.mkfifo(guard.directory / "z.jsonl.lock")
    assert guard.unmount() == 0
    assert not mounts_below(guard.directory)


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", ">&- 2>&- <&-"])
def test_a_lost_terminal_keeps_nothing_from_its_end(place: Path, closed: str) -> None:
    directory = place / "sessions"
    directory.mkdir()
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *GUARDFS, "run", "--sessions", str(directory), "--state",
         str(place / "state"), "--force", "--", "sh", "-c", f"echo ran > {directory}/ran.txt; exit 3"],
        env=environment(), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert not mounts_below(directory)
    assert (directory / "ran.txt").read_text() == "ran\n"


def test_a_guard_around_a_guard_is_refused(guard: Guard) -> None:
    outer = guard.directory.parent
    done = subprocess.run(
        [*GUARDFS, "mount", str(outer), "--state", str(guard.beside / "other"), "--force"],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "lies in it" in done.stderr


def test_one_state_directory_serves_one_guard(guard: Guard, place: Path) -> None:
    other = place / "other"
    other.mkdir()
    done = subprocess.run(
        [*GUARDFS, "mount", str(other), "--state", str(guard.state), "--audit", str(place / "o.jsonl"), "--force"],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "state of a guard that runs" in done.stderr
    assert not mounts_below(other)


def test_a_stopped_daemon_can_be_taken_off_by_force(start_guard: StartGuard, place: Path) -> None:
    guard = start_guard()
    os.kill(guard.daemon, signal.SIGSTOP)
    try:
        done = subprocess.run(
            [*GUARDFS, "unmount", str(guard.directory), "--force"],
            env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not mounts_below(guard.directory)
    finally:
        os.kill(guard.daemon, signal.SIGCONT)
    assert guard.process is not None
    guard.process.wait(60)


def test_a_working_directory_that_is_gone_is_one_line(place: Path) -> None:
    gone = place / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", sys.executable, "-m", "guardfs", "mount", "x"],
        cwd=gone, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
