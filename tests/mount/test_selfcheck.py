"""What a daemon proves before it calls itself ready."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.faulty import DAEMON
from tests.support.guard import Guard, environment
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.mount


def test_a_daemon_that_cannot_tell_the_writer_of_a_write_does_not_start(new_guard: StartGuard) -> None:
    guard = new_guard(
        command=[sys.executable, "-m", "tests.support.faulty"], env={DAEMON: "tests.support.blind_daemon"}
    )
    process = guard.launch()
    assert process.wait(60) == 2
    said = [line for line in guard.said().splitlines() if line.startswith("guardfs: ")]
    assert len(said) == 1
    assert "the writer of a write cannot be told" in said[0]
    assert not mounts_below(guard.directory)
    assert os.listdir(guard.directory) == []


def test_the_check_leaves_no_file_behind_and_no_event(guard: Guard) -> None:
    assert os.listdir(guard.directory) == []
    assert not [event for event in guard.settle() if "check" in event.get("path", "")]


def test_a_program_can_replace_itself_while_it_holds_open_files(guard: Guard, tmp_path: Path) -> None:
    """execve() closes close-on-exec files while the kernel holds a lock that reading /proc/PID/stat waits for: a
    guard that asks who flushes would hang here, and the program with it."""
    program = (
        "import os, sys\n"
        "os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "os.execv('/bin/sh', ['sh', '-c', 'echo replaced'])\n"
    )
    for number in range(5):
        done = subprocess.run(
            [sys.executable, "-c", program, str(guard.directory / f"{number}.jsonl")],
            capture_output=True,
            timeout=60,
            env=environment(),
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, b"replaced\n")


def test_the_kernel_asks_for_no_flush_once_the_check_is_over(guard: Guard) -> None:
    before = guard.status()["operations"].get("flush", 0)
    for number in range(10):
        (guard.directory / f"{number}.txt").write_text("x")
    assert guard.status()["operations"].get("flush", 0) == before == 1
