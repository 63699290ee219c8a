"""When a moment is quiet."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardfs.policy.model import Transcripts
from guardfs.supervise.quiet import live_locks, wait_for_quiet, why_not_quiet
from guardfs.transcript.names import NameRules

OPENCLAW = Transcripts(exclude=("*.trajectory.jsonl", "*.checkpoint.*.jsonl"))
NAMES = NameRules(OPENCLAW)
LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    os.utime(tmp_path, LONG_AGO)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def my_start() -> int:
    return int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])


def lock(place: Path, content: object, *, old: bool = True, name: str = "s.jsonl.lock") -> Path:
    path = place / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    if old:
        os.utime(path, LONG_AGO)
    os.utime(place, LONG_AGO)
    return path


def ended() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_an_untouched_directory_is_quiet(directory: int) -> None:
    assert why_not_quiet(directory, NAMES) == ""


def test_a_directory_that_was_just_changed_is_not(directory: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert why_not_quiet(directory, NAMES) == "files come and go"
    assert wait_for_quiet(directory, NAMES, 30) == ""  # it settles by itself


def test_a_live_holder_counts_however_old_its_lock(directory: int, tmp_path: Path) -> None:
    lock(tmp_path, {"pid": os.getpid(), "starttime": my_start()})
    assert why_not_quiet(directory, NAMES) == "s.jsonl.lock is held"
    lock(tmp_path, {"pid": os.getpid()}, name="t.jsonl.lock")
    assert why_not_quiet(directory, NAMES) == "s.jsonl.lock and 1 more is held"


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}'])
def test_an_old_lock_of_nobody_does_not_count(directory: int, tmp_path: Path, content: str) -> None:
    lock(tmp_path, content)
    assert live_locks(directory, NAMES) == []


def test_a_dead_holders_old_lock_does_not_count(directory: int, tmp_path: Path) -> None:
    lock(tmp_path, {"pid": ended()})
    lock(tmp_path, {"pid": os.getpid(), "starttime": 1}, name="t.jsonl.lock")
    assert live_locks(directory, NAMES) == []


def test_a_fresh_lock_counts_whoever_holds_it(directory: int, tmp_path: Path) -> None:
    lock(tmp_path, {"pid": ended()}, old=False)
    assert live_locks(directory, NAMES) == ["s.jsonl.lock"]


def test_other_files_are_no_locks(directory: int, tmp_path: Path) -> None:
    for name in ("sessions.json.lock", "a.trajectory.jsonl.lock", "x.lock"):
        lock(tmp_path, {"pid": os.getpid()}, name=name)
    assert live_locks(directory, NAMES) == []


def test_a_fifo_or_symlink_in_a_locks_place_does_not_hang(directory: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.jsonl.lock")
    os.symlink("/dev/zero", tmp_path / "l.jsonl.lock")
    assert "l.jsonl.lock" not in live_locks(directory, NAMES)


def test_waiting_ends_with_the_lock(directory: int, tmp_path: Path) -> None:
    held = lock(tmp_path, {"pid": os.getpid(), "starttime": my_start()})
    waited = []

    def release(seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 3:
            held.unlink()
            os.utime(tmp_path, LONG_AGO)
        return False

    assert wait_for_quiet(directory, NAMES, 3600, impatient=release) == ""
    assert len(waited) == 3


def test_waiting_ends_with_patience_and_with_time(directory: int, tmp_path: Path) -> None:
    lock(tmp_path, {"pid": os.getpid(), "starttime": my_start()})
    assert "is held" in wait_for_quiet(directory, NAMES, 3600, impatient=lambda seconds: True)
    assert "is held" in wait_for_quiet(directory, NAMES, 0)
