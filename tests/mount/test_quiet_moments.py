"""Mounting and unmounting wait for a moment without lock files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.guard import Guard
from tests.support.mounts import mounts_below
from tests.support.running import guardfs
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount


def lock(directory: Path, pid: int, start: int | None = None) -> Path:
    path = directory / "s.jsonl.lock"
    path.write_text(json.dumps({"pid": pid, "createdAt": "2026-05-23T03:37:47Z", "starttime": start}))
    return path


def age(*paths: Path) -> None:
    """Let files and directories look long untouched."""
    for path in paths:
        os.utime(path, (1_700_000_000, 1_700_000_000))


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])


def test_a_live_lock_keeps_a_mount_waiting_until_it_is_released(new_guard: StartGuard) -> None:
    guard = new_guard("--timeout", "60", quiet=True)
    held = lock(guard.directory, os.getpid(), start_time(os.getpid()))
    guard.launch()
    wait_for(lambda: _watches(guard, held), "the guard to look at the lock")
    assert not mounts_below(guard.directory)
    held.unlink()
    age(guard.directory)
    guard.wait_said("guarding")
    guard.unmount()


def _watches(guard: Guard, held: Path) -> bool:
    """The supervisor has read the lock: relatime moves the access time of a file read for the first time."""
    return held.stat().st_atime_ns >= held.stat().st_mtime_ns and guard.state.exists()


def test_a_live_lock_refuses_a_mount_after_the_timeout(new_guard: StartGuard) -> None:
    guard = new_guard("--timeout", "0.3", quiet=True)
    age(lock(guard.directory, os.getpid(), start_time(os.getpid())), guard.directory)
    process = guard.launch()
    assert process.wait(60) == 2
    (line,) = guard.said().splitlines()
    assert "no quiet moment to mount" in line and "s.jsonl.lock is held" in line and "--force" in line
    assert not mounts_below(guard.directory)


def test_force_mounts_in_spite_of_a_lock(new_guard: StartGuard) -> None:
    guard = new_guard()
    lock(guard.directory, os.getpid(), start_time(os.getpid()))
    guard.start().stop()


@pytest.mark.parametrize("why", ["dead", "another with its id", "torn"])
def test_a_stale_lock_does_not_count(new_guard: StartGuard, why: str) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    guard = new_guard("--timeout", "5", quiet=True)
    holder = (ended.pid, 12345) if why == "dead" else (os.getpid(), 1)
    held = lock(guard.directory, *holder)
    if why == "torn":
        held.write_text('{"pid": 12')
    age(held, guard.directory)
    guard.start()
    age(guard.directory)
    guard.stop()


def test_a_live_lock_delays_the_unmount_to_the_timeout_and_no_longer(new_guard: StartGuard) -> None:
    guard = new_guard("--timeout", "0.5", quiet=True)
    age(guard.directory)
    guard.start()
    lock(guard.directory, os.getpid(), start_time(os.getpid()))
    assert guard.unmount() == 0
    assert "unmounting although s.jsonl.lock is held" in guard.said()


def test_unmount_command_leaves_a_directory_with_a_live_lock_guarded(guard: Guard) -> None:
    held = lock(guard.directory, os.getpid(), start_time(os.getpid()))
    done = guardfs("unmount", guard.directory, "--timeout", "0.3")
    assert done.returncode == 1
    assert "still guarded: s.jsonl.lock is held" in done.stderr
    assert mounts_below(guard.directory)
    held.unlink()


def test_a_second_signal_does_not_wait(new_guard: StartGuard, place: Path) -> None:
    address = place / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(60)
        guard = new_guard("--timeout", "3600", quiet=True, env={"NOTIFY_SOCKET": str(address)})
        age(guard.directory)
        guard.start()
        lock(guard.directory, os.getpid(), start_time(os.getpid()))
        assert guard.process is not None
        while b"STOPPING=1" not in listener.recv(1000):
            guard.process.send_signal(signal.SIGTERM)  # the first answer is READY
    guard.process.send_signal(signal.SIGTERM)
    assert guard.process.wait(60) == 0
    assert "unmounting although s.jsonl.lock is held" in guard.said()
