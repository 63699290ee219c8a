"""A full disk: writes go on, nothing is torn, what was lost is counted and said."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardfs.audit import sink as sink_module
from guardfs.audit.log import AuditLog
from guardfs.audit.verify import verify
from tests.unit.audit_tools import append, operation, wait_for, written

pytestmark = pytest.mark.mount


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point)], check=True)
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def fill(log: AuditLog, count: int) -> None:
    for _ in range(count):
        log.emit(append())


def test_a_full_disk_holds_the_events_and_tears_no_line(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 30_000)
    log = AuditLog(str(small_disk / "a.jsonl"), str(tmp_path / "head"))
    log.start()
    fill(log, 150)
    wait_for(lambda: log.failing)
    assert "No space left" in log.stats()["error"]
    text = (small_disk / "a.jsonl").read_bytes()
    assert text.endswith(b"\n")
    report = verify(str(small_disk / "a.jsonl"), str(tmp_path / "head"))
    assert report.ok and report.head == "fits"
    assert report.last is not None and report.last < 100
    ballast.unlink()
    # 150 events are more than the disk holds: the log goes elsewhere, as an operator would make it
    (small_disk / "a.jsonl").rename(small_disk / "a.jsonl.1")
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    wait_for(lambda: not log.failing and log.stats()["queued"] == 0)
    log.close()
    events = written(small_disk / "a.jsonl.1") + written(small_disk / "a.jsonl")
    assert [event["op"] for event in events].count("write") == 150
    gap = events[-1]
    assert gap["op"] == "gap" and gap["count"] == 0 and "No space left" in gap["error"]
    assert verify(str(small_disk / "a.jsonl"), str(tmp_path / "head")).ok


def test_what_is_beyond_the_bounds_is_counted_and_said_when_the_disk_is_back(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "MAX_EVENTS", 600)
    log = AuditLog(str(small_disk / "a.jsonl"), str(tmp_path / "head"))
    log.start()
    fill(log, 3000)

    def all_taken() -> bool:
        stats = log.stats()
        told = stats["dropped"] + stats["queued"] + stats["written"] == 3002
        return bool(log.failing and told and stats["queued"] <= 600)

    wait_for(all_taken)
    dropped = log.stats()["dropped"]
    assert dropped > 2000
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    wait_for(lambda: not log.failing)
    log.emit(operation("unlink"))
    log.close()
    events = written(small_disk / "a.jsonl")
    gap = next(event for event in events if event["op"] == "gap")
    assert gap["count"] == dropped
    assert [event["op"] for event in events].count("write") == 3000 - dropped > 0
    assert events[-1]["op"] == "unlink"
    report = verify(str(small_disk / "a.jsonl"), str(tmp_path / "head"))
    assert report.ok and report.gaps == dropped


def test_a_disk_that_stays_full_does_not_hold_up_the_end(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 60_000)
    log = AuditLog(str(small_disk / "a.jsonl"), str(tmp_path / "head"))
    log.start()
    fill(log, 100)
    wait_for(lambda: log.failing)
    log.close()
    assert verify(str(small_disk / "a.jsonl"), str(tmp_path / "head")).ok
