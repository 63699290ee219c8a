"""The merger on real files: what becomes of a branch whose transcript has gone on, gone away, or become another."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guardfs.mount.backing import Backing
from guardfs.mount.merging import Merged, Merger
from guardfs.state.branches import BranchFacts, BranchFile, BranchStore
from guardfs.transcript.formats import CLAUDE_CODE, LINES, PI, Format
from tests.support.descriptors import none_left_open
from tests.support.lab import HEADER, ids, path_from_leaf, record

NAME = b"s.jsonl"
START = HEADER + record("base0001", None) + record("base0002", "base0001")


class Desk:
    """A directory with a transcript, a journal, and a merger over calls that can be made to fail."""

    def __init__(self, place: Path, format: Format = PI) -> None:
        self.sessions = place / "sessions"
        self.sessions.mkdir()
        (place / "state").mkdir()
        self.path = self.sessions / "s.jsonl"
        self.store = BranchStore(str(place / "state"))
        self.below = Backing()
        self.merger = Merger(self.store, self.below, format)
        self.dir_fd = os.open(self.sessions, os.O_PATH | os.O_DIRECTORY)

    def branch(self, *content: bytes, follows: int = 0, **facts: Any) -> BranchFile:
        """A branch on the transcript as it is."""
        there = self.path.exists()
        st = self.path.stat() if there else None
        more = {
            "base": st.st_size if st else 0,
            "inode": st.st_ino if st else 0,
            "device": st.st_dev if st else 0,
            "exists": there,
            "whole": not there,
            **facts,
        }
        return self.store.create(
            lambda number: BranchFacts(number=number, transcript=NAME, lane="cron:a/b", opened=7, **more),
            content,
            follows,
        )

    def merge(self, file: BranchFile) -> Merged:
        return self.merger.merge(file, self.dir_fd, NAME, "T")

    def fails(self, call: str, number: int = errno.EIO, first: int = 1) -> None:
        """Let *call* fail from its *first* time on."""
        real, count = getattr(Backing, call), [0]

        def fail(*args: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] >= first:
                raise OSError(number, os.strerror(number))
            return real(*args, **more)

        setattr(self.below, call, fail)

    def mend(self) -> None:
        vars(self.below).clear()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.sessions.iterdir())

    def journal(self) -> list[str]:
        return sorted(os.listdir(self.store.path))

    def end(self) -> None:
        self.store.close()
        os.close(self.dir_fd)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with none_left_open():
        made = Desk(tmp_path)
        yield made
        made.end()


def old(path: Path, seconds: int = 1000) -> int:
    """Let *path* have been written long ago; when, ns."""
    os.utime(path, (seconds, seconds))
    return seconds * 1_000_000_000


def test_an_append_gets_the_leaf_that_was_committed_meanwhile(desk: Desk) -> None:
    desk.path.write_bytes(START)
    file = desk.branch(record("f1", "base0002"), record("f2", "f1"))
    with desk.path.open("ab") as more:
        more.write(record("own1", "base0002"))
    inode = desk.path.stat().st_ino
    merged = desk.merge(file)
    assert (merged.result, merged.name, merged.records, merged.moved) == ("appended", NAME, 2, 1)
    assert path_from_leaf(desk.path.read_bytes()) == ["base0001", "base0002", "own1", "f1", "f2"]
    assert desk.path.stat().st_ino == inode and merged.size == desk.path.stat().st_size
    assert desk.journal() == [] and desk.names() == ["s.jsonl"]


def continued(desk: Desk) -> BranchFile:
    """A branch, from whose record the file went on: its own process has written there."""
    desk.path.write_bytes(START)
    file = desk.branch(record("f1", "base0002"))
    with desk.path.open("ab") as more:
        more.write(record("own1", "base0002") + record("f2", "f1") + record("f3", "f2"))
    return file


def test_a_branch_goes_before_what_its_own_process_wrote_behind_it_in_the_file(desk: Desk) -> None:
    desk_mode = 0o640
    file = continued(desk)
    desk.path.chmod(desk_mode)
    merged = desk.merge(file)
    assert (merged.result, merged.records) == ("replaced", 1)
    data = desk.path.read_bytes()
    assert ids(data) == ["base0001", "base0002", "f1", "own1", "f2", "f3"]
    assert path_from_leaf(data) == ids(data) and merged.size == len(data)
    assert stat.S_IMODE(desk.path.stat().st_mode) == desk_mode
    assert desk.journal() == [] and desk.names() == ["s.jsonl"]


def test_it_is_put_there_once_though_the_guard_ends_at_any_step(desk: Desk) -> None:
    file = continued(desk)

    class End(BaseException):
        pass

    steps: list[str] = []
    desk.store.step = steps.append
    before, journal = (
        desk.path.read_bytes(),
        {p.name: p.read_bytes() for p in Path(desk.store.path).iterdir()},
    )
    desk.merge(file)
    whole = desk.path.read_bytes()
    for at in range(len(steps)):
        desk.store.close()
        for path in Path(desk.store.path).iterdir():
            path.unlink()
        for name, data in journal.items():
            (Path(desk.store.path) / name).write_bytes(data)
        desk.path.write_bytes(before)
        st = desk.path.stat()
        desk.store.step = lambda name: None
        desk.store.load()
        (file,) = desk.store.files.values()
        desk.store.describe(file, msgspec.structs.replace(file.facts, inode=st.st_ino, device=st.st_dev))
        left = [at]

        def end(name: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise End(name)

        desk.store.step = end
        with contextlib.suppress(End):
            desk.merge(file)
        desk.store.step = lambda name: None
        desk.store.close()
        desk.store.load()
        for each in list(desk.store.files.values()):
            desk.merge(each)
        assert desk.path.read_bytes() == whole, steps[at]
        assert desk.names() == ["s.jsonl"], steps[at]


def test_where_it_cannot_be_put_there_no_record_becomes_its_own_ancestor(desk: Desk) -> None:
    """The file was made anew meanwhile."""
    file = continued(desk)
    anew = desk.path.with_name("anew")
    anew.write_bytes(desk.path.read_bytes())
    anew.rename(desk.path)
    assert desk.merge(file).result == "appended"
    data = desk.path.read_bytes()
    assert ids(data) == ["base0001", "base0002", "own1", "f2", "f3", "f1"]
    assert path_from_leaf(data) == ["base0001", "base0002", "f1"]


def test_every_other_byte_of_an_append_stays(desk: Desk) -> None:
    desk.path.write_bytes(START)
    odd = b'{ "type":"message" ,"parentId" : "base0002","id":"f1", "n":1.50, "text":"\\u00e4\xc3\xa4" }\n'
    file = desk.branch(odd)
    with desk.path.open("ab") as more:
        more.write(record("own1", "base0002"))
    desk.merge(file)
    assert desk.path.read_bytes().endswith(odd.replace(b'"base0002"', b'"own1"'))


def test_what_nobody_went_past_is_appended_as_it_is(desk: Desk) -> None:
    desk.path.write_bytes(START)
    desk.merge(desk.branch(record("f1", "base0002")))
    assert desk.path.read_bytes() == START + record("f1", "base0002")


def test_the_modification_time_is_that_of_the_last_write(desk: Desk) -> None:
    desk.path.write_bytes(START)
    file = desk.branch(record("f1", "base0002"))
    written = old(Path(desk.store.path) / "1.data", 2000)
    old(desk.path, 1000)
    desk.merge(file)
    assert desk.path.stat().st_mtime_ns == written
    file = desk.branch(record("f2", "f1"))
    old(Path(desk.store.path) / f"{file.number}.data", 1500)
    desk.merge(file)
    assert desk.path.stat().st_mtime_ns == written, "the file's own was later"


def test_a_line_without_its_end_is_ended_first(desk: Desk) -> None:
    desk.path.write_bytes(START[:-1])
    desk.merge(desk.branch(record("f1", "base0002")))
    assert desk.path.read_bytes() == START + record("f1", "base0002")


def test_what_cannot_be_parsed_is_appended_as_it_is(desk: Desk) -> None:
    desk.path.write_bytes(START)
    merged = desk.merge(desk.branch(b"half a rec", b'ord"}\n', record("f1", "base0002")))
    assert merged.unparsed == 1
    assert desk.path.read_bytes() == START + b'half a record"}\n' + record("f1", "base0002")


def test_a_second_header_is_dropped(desk: Desk) -> None:
    file = desk.branch(HEADER, record("f1", None))
    desk.path.write_bytes(START)
    assert desk.merge(file).dropped == 1
    assert path_from_leaf(desk.path.read_bytes()) == ["base0001", "base0002", "f1"]
    assert desk.path.read_bytes().count(b'"session"') == 1


def test_a_transcript_is_made_with_the_mode_and_owner_that_its_maker_gave_it(desk: Desk) -> None:
    owner = 64012 if os.geteuid() == 0 else os.geteuid()
    file = desk.branch(HEADER, record("f1", None), mode=0o640, uid=owner, gid=os.getegid())
    written = old(Path(desk.store.path) / "1.data")
    merged = desk.merge(file)
    st = desk.path.stat()
    assert (merged.result, merged.records) == ("made", 2)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_mtime_ns) == (0o640, owner, written)
    assert desk.path.read_bytes() == HEADER + record("f1", None) and desk.names() == ["s.jsonl"]


def test_an_empty_branch_changes_nothing(desk: Desk) -> None:
    desk.path.write_bytes(START)
    old(desk.path)
    before = desk.path.stat()
    assert desk.merge(desk.branch()).result == "empty"
    assert desk.path.stat() == before and desk.journal() == []


def test_a_transcript_that_was_emptied_on_a_branch_is_empty(desk: Desk) -> None:
    desk.path.write_bytes(START)
    assert desk.merge(desk.branch(whole=True)).result == "replaced"
    assert desk.path.read_bytes() == b""


def test_a_replacement_keeps_what_was_committed_since_its_base(desk: Desk) -> None:
    desk.path.write_bytes(START)
    desk.path.chmod(0o640)
    file = desk.branch(HEADER, record("new1", None), whole=True)
    with desk.path.open("ab") as more:
        more.write(record("own1", "base0002") + record("own2", "own1"))
    merged = desk.merge(file)
    assert (merged.result, merged.records, merged.moved) == ("replaced", 2, 1)
    assert path_from_leaf(desk.path.read_bytes()) == ["new1", "own1", "own2"]
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o640, "it was rewritten in place"


def test_a_replacement_that_knows_what_was_committed_has_it_once(desk: Desk) -> None:
    desk.path.write_bytes(START)
    own = record("own1", "base0002")
    file = desk.branch(HEADER, record("base0001", None), own.replace(b"base0002", b"base0001"), whole=True)
    with desk.path.open("ab") as more:
        more.write(own)
    desk.merge(file)
    assert path_from_leaf(desk.path.read_bytes()) == ids(desk.path.read_bytes()) == ["base0001", "own1"]


def test_a_file_that_takes_the_name_brings_its_mode(desk: Desk) -> None:
    desk.path.write_bytes(START)
    desk.path.chmod(0o600)
    own = {"uid": os.geteuid(), "gid": os.getegid()}
    assert desk.merge(desk.branch(HEADER, whole=True, replaces=True, mode=0o644, **own)).result == "replaced"
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o644


@pytest.mark.parametrize("change", ["removed", "replaced", "cut", "a directory", "a link"])
def test_what_cannot_be_merged_is_kept_beside_it(desk: Desk, change: str) -> None:
    desk.path.write_bytes(START)
    file = desk.branch(HEADER, record("new1", None), whole=True)
    if change == "cut":
        os.truncate(desk.path, 10)
    else:
        desk.path.rename(desk.sessions / "elsewhere")
    if change == "replaced":
        desk.path.write_bytes(START)
    elif change == "a directory":
        desk.path.mkdir()
    elif change == "a link":
        desk.path.symlink_to("elsewhere")
    merged = desk.merge(file)
    kept = desk.sessions / "s.jsonl.conflict.cron-a-b.T"
    assert (merged.result, merged.name) == ("conflict", os.fsencode(kept.name))
    assert kept.read_bytes() == HEADER + record("new1", None)
    assert desk.journal() == []
    if change in ("removed", "replaced", "a link"):
        assert (desk.sessions / "elsewhere").read_bytes() == START


def test_an_append_to_a_file_that_was_removed_is_kept_beside_it(desk: Desk) -> None:
    desk.path.write_bytes(START)
    file = desk.branch(record("f1", "base0002"))
    desk.path.unlink()
    assert desk.merge(file).result == "conflict"
    assert [path.read_bytes() for path in desk.sessions.iterdir()] == [record("f1", "base0002")]


@pytest.mark.parametrize("kind", ["uuid", "lines"])
def test_other_formats(tmp_path: Path, kind: str) -> None:
    desk = Desk(tmp_path, CLAUDE_CODE if kind == "uuid" else LINES)
    if kind == "uuid":
        first, own, new = (
            b'{"type":"user","uuid":"%b","parentUuid":%b}\n' % each
            for each in ((b"a", b"null"), (b"b", b'"a"'), (b"c", b'"a"'))
        )
        expected = new.replace(b'"a"', b'"b"')
    else:
        first, own, new = b"one\n", b"two\n", b"three\n"
        expected = new
    desk.path.write_bytes(first)
    file = desk.branch(new)
    with desk.path.open("ab") as more:
        more.write(own)
    desk.merge(file)
    assert desk.path.read_bytes() == first + own + expected
    desk.end()


# ---- disks that refuse

BIG = record("f1", "base0002", 1_300_000) + record("f2", "f1", 1_300_000)


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_append_that_fails_leaves_the_transcript_as_it_was(desk: Desk, number: int, first: int) -> None:
    desk.path.write_bytes(START)
    when = old(desk.path)
    file = desk.branch(BIG)
    desk.fails("pwrite", number, first)
    with pytest.raises(OSError) as caught:
        desk.merge(file)
    assert caught.value.errno == number
    assert desk.path.read_bytes() == START and desk.path.stat().st_mtime_ns == when
    with desk.path.open("ab") as more:  # the agent goes on
        more.write(record("own1", "base0002"))
    desk.mend()
    desk.merge(file)
    assert path_from_leaf(desk.path.read_bytes()) == ["base0001", "base0002", "own1", "f1", "f2"]
    assert ids(desk.path.read_bytes()) == path_from_leaf(desk.path.read_bytes())


def test_an_append_that_could_not_even_be_undone_is_finished_behind_who_went_on(desk: Desk) -> None:
    desk.path.write_bytes(START)
    file = desk.branch(record("f1", "base0002", 700_000), record("f2", "f1", 700_000), record("f3", "f2"))
    desk.fails("pwrite", first=2)
    desk.fails("ftruncate")
    with pytest.raises(OSError, match="Input"):
        desk.merge(file)
    assert ids(desk.path.read_bytes())[2:] == ["f1"]
    with desk.path.open("ab") as more:
        more.write(record("own1", "f1"))
    desk.mend()
    desk.merge(file)
    found = ids(desk.path.read_bytes())
    assert (
        found == path_from_leaf(desk.path.read_bytes()) == ["base0001", "base0002", "f1", "own1", "f2", "f3"]
    )


CALLS = ["open", "fstat", "pread", "pwrite", "fchmod", "fchown", "rename", "close", "unlink", "fsync"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["append", "make", "replace", "conflict"])
def test_whatever_call_fails_the_branch_is_whole_at_the_next_attempt(
    desk: Desk, call: str, kind: str
) -> None:
    """Each call, at each of its times."""
    for first in range(1, 30):
        for path in desk.sessions.iterdir():
            path.unlink()
        if kind != "make":
            desk.path.write_bytes(START)
        whole = kind in ("make", "replace", "conflict")
        new = (HEADER if whole else b"") + record("f1", None if whole else "base0002")
        file = desk.branch(new, whole=whole)
        file.sync()
        if kind == "replace":
            with desk.path.open("ab") as more:
                more.write(record("own1", "base0002"))
        elif kind == "conflict":
            desk.path.rename(desk.sessions / "elsewhere")
        count = [0]
        real = getattr(Backing, call)

        def fail(
            *args: Any, _count: list[int] = count, _real: Any = real, _at: int = first, **more: Any
        ) -> Any:
            _count[0] += 1
            if _count[0] == _at:
                if call == "close":
                    _real(*args)
                raise OSError(errno.EIO, "Input/output error")
            return _real(*args, **more)

        setattr(desk.below, call, fail)
        failed = False
        try:
            desk.merge(file)
        except OSError:
            failed = True
        desk.mend()
        if count[0] < first:
            assert not failed
            return
        if file.number in desk.store.files:
            desk.merge(file)
        found = [each for path in desk.sessions.iterdir() for each in ids(path.read_bytes())]
        wanted = {"append": ["base0001", "base0002", "f1"], "make": ["f1"], "replace": ["f1", "own1"]}
        assert sorted(found) == sorted(wanted.get(kind, ["base0001", "base0002", "f1"])), (
            first,
            desk.names(),
        )
        assert not [name for name in desk.names() if name.endswith(".tmp")], first
        assert desk.journal() == []
    raise AssertionError("it never came to its end")


def test_a_time_that_cannot_be_set_is_no_reason_to_fail(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.path.write_bytes(START)
    desk.fails("utimens")
    assert desk.merge(desk.branch(record("f1", "base0002"))).result == "appended"
    assert "modification time" in caplog.text and desk.journal() == []


def test_what_was_synced_is_synced_in_the_file_before_the_journal_forgets_it(desk: Desk) -> None:
    order: list[str] = []
    desk.store.step = order.append
    real = Backing.fsync
    desk.below.fsync = lambda fd: (order.append("fsync"), real(fd))[1]  # type: ignore[func-returns-value]
    desk.path.write_bytes(START)
    file = desk.branch(record("f1", "base0002"))
    file.sync()
    file.write(record("f2", "f1"), file.size)
    desk.merge(file)
    assert order.index("merge.appended") < order.index("fsync") < order.index("branch.dropped")
    order.clear()
    file = desk.branch(HEADER, whole=True)
    file.sync()
    desk.merge(file)
    assert order.index("fsync") < order.index("merge.replaced") < order.index("branch.dropped")
    assert order.count("fsync") == 2, "the directory, too"
    order.clear()
    desk.merge(desk.branch(record("f3", None)))
    assert "fsync" not in order, "nobody has asked for it"
