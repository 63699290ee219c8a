"""Open files: reads and writes, what the log is told of them, and what happens when the disk says no."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from guardfs.mount.backing import Backing
from guardfs.transcript.records import INVALID
from tests.operations.conftest import MakeFs
from tests.support.direct import ROOT, Direct, finish


def failing(name: str, number: int) -> Backing:
    """A directory below where the call *name* fails."""

    def fail(*args: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    below = Backing()
    setattr(below, name, fail)
    return below


def test_write_read_and_what_the_log_is_told(fs: Direct) -> None:
    handle = fs.make(b"t.jsonl", b"one\n", os.O_RDWR | os.O_APPEND)
    assert finish(fs.write(handle, 0, b"two\n")) == 4  # an appending handle ignores the offset
    assert bytes(finish(fs.read(handle, 0, 100))) == b"one\ntwo\n"
    assert bytes(finish(fs.read(handle, 4, 2))) == b"tw"
    assert bytes(finish(fs.read(handle, 100, 5))) == b""
    found = [(op.offset, op.size, op.append, op.records) for op in fs.log.operations("write")]
    assert found == [(0, 4, True, [INVALID]), (4, 4, True, [INVALID])]
    assert {op.writer.tid for op in fs.log.operations("write")} == {os.getpid()}
    assert [(op.offset, op.size) for op in fs.log.operations("read")] == [(0, 8), (4, 2), (100, 0)]


def test_other_files_are_not_read_for_records(fs: Direct) -> None:
    fs.make(b"notes.txt", b"{}\n")
    assert [op.records for op in fs.log.operations("write")] == [None]


@pytest.mark.parametrize("flags", [0, os.O_DSYNC, os.O_SYNC])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_a_write_that_fails_is_told_with_its_errno(make_fs: MakeFs, flags: int, number: int) -> None:
    fs = make_fs(below=failing("pwrite", number))
    handle = fs.make(b"t.jsonl", flags=os.O_WRONLY | os.O_APPEND | flags)
    with pytest.raises(OSError) as caught:
        finish(fs.write(handle, 0, b"lost\n"))
    assert caught.value.errno == number
    (told,) = fs.log.operations("write")
    assert (told.errno, told.size) == (number, 0)
    assert fs.internal_errors == 0
    fs.release(handle)
    assert not fs.handles


@pytest.mark.parametrize("flags", [0, os.O_DSYNC])
def test_a_short_write_is_told_as_short(make_fs: MakeFs, flags: int) -> None:
    below = Backing()

    def some(fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data[:3], offset)

    below.pwrite = some  # type: ignore[assignment]
    fs = make_fs(below=below)
    handle = fs.make(b"t.jsonl", flags=os.O_WRONLY | os.O_APPEND | flags)
    assert finish(fs.write(handle, 0, b"abcdef")) == 3
    assert [(op.offset, op.size) for op in fs.log.operations("write")] == [(0, 3)]
    assert (fs.directory / "t.jsonl").read_bytes() == b"abc"
    assert fs.unseen_changes == 0


def test_two_synchronous_appends_under_way_at_once(fs: Direct) -> None:
    """Each is told with its own place in the file, and neither is taken for an unseen writer's."""
    handle = fs.make(b"t.jsonl", flags=os.O_WRONLY | os.O_APPEND | os.O_DSYNC)
    answers = [fs.write(handle, 0, b"first\n"), fs.write(handle, 0, b"second\n")]
    results = [answer.work() for answer in answers if not isinstance(answer, int)]
    for answer, result in zip(answers, results, strict=True):
        assert not isinstance(answer, int)
        answer.then(result)
    assert (fs.directory / "t.jsonl").read_bytes() == b"first\nsecond\n"
    assert fs.unseen_changes == 0
    assert [(op.offset, op.size) for op in fs.log.operations("write")] == [(0, 6), (6, 7)]


@pytest.mark.parametrize("where", ["audit.emit", "processes.writer", "below.fstat"])
def test_a_write_that_was_done_succeeds_whatever_fails_afterwards(
    make_fs: MakeFs, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = make_fs()
    handle = fs.make(b"t.jsonl", flags=os.O_WRONLY | os.O_APPEND)

    def fail(*args: Any, **more: Any) -> Any:
        raise RuntimeError(where)

    owner, _, name = where.partition(".")
    monkeypatch.setattr(getattr(fs, owner), name, fail)
    try:
        assert finish(fs.write(handle, 0, b"done\n")) == 5
    finally:
        monkeypatch.undo()
    assert fs.internal_errors >= 1
    assert (fs.directory / "t.jsonl").read_bytes() == b"done\n"


def test_fsync_and_its_failure(make_fs: MakeFs) -> None:
    fs = make_fs(below=failing("fdatasync", errno.EIO))
    handle = fs.make(b"t.jsonl", b"x")
    finish(fs.fsync(handle, False))
    with pytest.raises(OSError):
        finish(fs.fsync(handle, True))
    assert [op.errno for op in fs.log.operations("sync")] == [0, errno.EIO]


def test_a_handle_that_is_not_known(fs: Direct) -> None:
    for call in (lambda: fs.read(99, 0, 1), lambda: fs.write(99, 0, b"x"), lambda: fs.fsync(99, False)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    fs.release(99)


def test_flush_is_refused_for_good(fs: Direct) -> None:
    with pytest.raises(OSError) as caught:
        fs.flush(1)
    assert caught.value.errno == errno.ENOSYS


def test_open_with_truncation_is_one_event(fs: Direct) -> None:
    fs.release(fs.make(b"t.jsonl", b"old"))
    node = fs.find(b"t.jsonl")
    fs.open(node, os.O_WRONLY | os.O_TRUNC, fs.me)
    assert (fs.directory / "t.jsonl").read_bytes() == b""
    assert [(op.size, op.errno) for op in fs.log.operations("truncate")] == [(0, 0)]
    assert fs.log.operations("open") == []


def test_an_open_that_fails_leaves_nothing(make_fs: MakeFs) -> None:
    fs = make_fs()
    fs.release(fs.make(b"t.jsonl", b"x"))
    fs.below = failing("ftruncate", errno.EIO)
    with pytest.raises(OSError):
        fs.open(fs.find(b"t.jsonl"), os.O_WRONLY | os.O_TRUNC, fs.me)
    assert fs.handles == {}
    assert [op.errno for op in fs.log.operations("truncate")] == [errno.EIO]


def test_a_change_by_another_before_a_write_is_told_as_unseen(fs: Direct) -> None:
    handle = fs.make(b"t.jsonl", b"one\n", os.O_WRONLY | os.O_APPEND)
    with (fs.directory / "t.jsonl").open("ab") as file:
        file.write(b"foreign\n")
    finish(fs.write(handle, 0, b"two\n"))
    assert [notice.fields["change"] for notice in fs.log.notices("unseen")] == ["modified"]
    assert [op.offset for op in fs.log.operations("write")] == [0, 12]


def test_changes_are_refused_while_a_required_log_cannot_be_written(make_fs: MakeFs) -> None:
    fs = make_fs(audit_required=True)
    handle = fs.make(b"t.jsonl", b"before\n", os.O_RDWR | os.O_APPEND)
    node = fs.find(b"t.jsonl")
    fs.log.failing = True
    attempts: list[Any] = [
        lambda: finish(fs.write(handle, 0, b"refused")),
        lambda: fs.make(b"new"),
        lambda: fs.mkdir(ROOT, b"d", 0o755, fs.me),
        lambda: fs.unlink(ROOT, b"t.jsonl", fs.me),
        lambda: fs.rename(ROOT, b"t.jsonl", ROOT, b"u.jsonl", 0, fs.me),
        lambda: fs.link(node, ROOT, b"l", fs.me),
        lambda: fs.symlink(ROOT, b"s", b"x", fs.me),
        lambda: fs.change(node, mode=0o600),
        lambda: fs.change(node, size=0),
        lambda: fs.open(node, os.O_WRONLY | os.O_TRUNC, fs.me),
        lambda: fs.setxattr(node, b"user.x", b"y", fs.me),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EIO
    assert os.listdir(fs.directory) == ["t.jsonl"]
    assert bytes(finish(fs.read(handle, 0, 100))) == b"before\n"
    fs.log.failing = False
    assert finish(fs.write(handle, 0, b"after\n")) == 6
