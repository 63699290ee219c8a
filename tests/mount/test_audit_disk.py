"""A log that cannot be written: writers go on and the gap is told; or they are refused, where that is asked for."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardfs.mount import libc
from tests.conftest import StartGuard
from tests.support.guard import Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

DISK_BYTES = 512 * 1024


@pytest.fixture
def disk(place: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    path = place / "disk"
    path.mkdir()
    libc.mount("none", os.fsencode(path), "tmpfs", 0, f"size={DISK_BYTES}")
    yield path
    libc.unmount(os.fsencode(path), libc.MNT_DETACH)


def fill(disk: Path) -> Path:
    """Leave no room on *disk*."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return ballast


def make_it_fail(guard: Guard) -> None:
    """Append until the guard has noticed that its log cannot grow."""

    def noticed() -> bool:
        with (guard.directory / "notice.txt").open("ab") as file:
            file.write(b"x")
        return bool(guard.status()["audit"]["failing"])

    wait_for(noticed, "the guard to notice that its log cannot be written")


def test_writes_go_on_while_the_disk_of_the_log_is_full_and_the_log_goes_on_after(
    start_guard: StartGuard, disk: Path
) -> None:
    guard = start_guard("--audit", str(disk / "audit.jsonl"))
    guard.audit = disk / "audit.jsonl"
    ballast = fill(disk)
    make_it_fail(guard)
    transcript = guard.directory / "session.jsonl"
    for number in range(50):
        with transcript.open("a") as file:
            file.write(f'{{"type":"message","id":"{number:08x}"}}\n')
    assert len(transcript.read_text().splitlines()) == 50
    assert guard.status()["audit"]["failing"]
    assert "No space left" in guard.status()["audit"]["error"]
    ballast.unlink()
    wait_for(lambda: not guard.status()["audit"]["failing"], "the log to be back")
    events = guard.settle()
    ids = [event["record"]["id"] for event in events if event["op"] == "write" and "record" in event]
    assert ids == [f"{number:08x}" for number in range(50)]
    assert [event for event in events if event["op"] == "gap"]


def test_writes_are_refused_while_a_required_log_cannot_be_written(
    start_guard: StartGuard, disk: Path
) -> None:
    guard = start_guard("--audit", str(disk / "audit.jsonl"), "--audit-required")
    guard.audit = disk / "audit.jsonl"
    transcript = guard.directory / "session.jsonl"
    transcript.write_text("first\n")
    ballast = fill(disk)
    fd = os.open(transcript, os.O_WRONLY | os.O_APPEND)
    try:

        def refused() -> bool:
            try:
                os.write(fd, b"x\n")
            except OSError as error:
                assert error.errno == errno.EIO
                return True
            return False

        wait_for(refused, "a write to be refused")
        for act in (
            lambda: (guard.directory / "new.jsonl").touch(),
            lambda: transcript.chmod(0o600),
            transcript.unlink,
            lambda: transcript.rename(guard.directory / "other.jsonl"),
        ):
            with pytest.raises(OSError) as caught:
                act()
            assert caught.value.errno == errno.EIO
        assert transcript.read_text().startswith("first\n")
        ballast.unlink()
        wait_for(lambda: not guard.status()["audit"]["failing"], "the log to be back")
        assert os.write(fd, b"last\n") == 5
    finally:
        os.close(fd)
    assert transcript.read_text().endswith("last\n")
