"""The journal of staged changes: what is written is there, whole or not at all, and read back by the next guard."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guardfs.errors import GuardError
from guardfs.state.branches import FORMAT, BranchFacts, BranchFile, BranchStore, GhostFacts, Intent
from tests.support.descriptors import none_left_open

GHOST = GhostFacts(transcript=b"s.jsonl", name=b"s.jsonl.bak", inode=5, device=6, size=7, removed=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BranchStore]:
    made = BranchStore(str(tmp_path))
    yield made
    made.close()


def names(store: BranchStore) -> list[str]:
    return sorted(os.listdir(store.path))


def make(store: BranchStore, *content: bytes, follows: int = 0, **facts: Any) -> BranchFile:
    return store.create(
        lambda number: BranchFacts(number=number, transcript=b"s.jsonl", lane="cron", **facts),
        content,
        follows,
    )


def again(store: BranchStore) -> tuple[BranchStore, dict[int, GhostFacts]]:
    """What the next guard finds."""
    store.close()
    found = BranchStore(os.path.dirname(store.path), store.max_branch, store.max_total)
    return found, found.load()


def content(file: BranchFile) -> bytes:
    return file.read(1 << 20, 0)


def failing(number: int, after: int = 0) -> Any:
    """pwrite(2) that fails with *number*, having written *after* bytes once."""
    left = [after]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if left[0]:
            done = os.pwrite(fd, data[: left[0]], offset)
            left[0] = 0
            return done
        raise OSError(number, os.strerror(number))

    return pwrite


def test_what_is_written_is_read_back_by_the_next_guard(store: BranchStore) -> None:
    file = make(store, base=20, exists=True, inode=3, device=4, opened=9)
    assert file.write(b"one\n", 0) == 4 and file.write(b"two\n", 4) == 4
    assert file.size == store.total == 8
    found, ghosts = again(store)
    (read,) = found.files.values()
    assert (read.facts, content(read), read.size, found.total) == (file.facts, b"one\ntwo\n", 8, 8)
    assert ghosts == {}
    found.close()


def test_a_write_behind_the_end_leaves_a_hole_and_one_within_replaces(store: BranchStore) -> None:
    file = make(store, b"abcd")
    file.write(b"XY", 1)
    file.write(b"z", 6)
    assert content(file) == b"aXYd\0\0z" and file.size == store.total == 7
    file.truncate(2)
    assert content(file) == b"aX" and file.size == store.total == 2
    file.truncate(4)
    assert content(file) == b"aX\0\0" and file.size == store.total == 4


def test_a_truncated_one_is_read_back_so(store: BranchStore) -> None:
    make(store, b"abcd").truncate(1)
    found, _ = again(store)
    assert [content(file) for file in found.files.values()] == [b"a"] and found.total == 1
    found.close()


def test_a_rewritten_one_takes_the_place_of_the_old(store: BranchStore) -> None:
    old = make(store, b"tail\n", base=20)
    new = make(store, b"whole\n", b"file\n", follows=old.number, whole=True)
    assert list(store.files) == [new.number] and store.total == 11
    assert names(store) == [f"{new.number}.data", f"{new.number}.json"]


def test_of_a_rewriting_that_was_killed_either_file_is_left_never_both(
    store: BranchStore, tmp_path: Path
) -> None:
    old = make(store, b"tail\n")
    kept = {name: (Path(store.path) / name).read_bytes() for name in names(store)}
    make(store, b"whole\n", follows=old.number, whole=True)
    for name, data in kept.items():  # as if killed before the old one was dropped
        (Path(store.path) / name).write_bytes(data)
    found, _ = again(store)
    assert [content(file) for file in found.files.values()] == [b"whole\n"]
    assert names(found) == ["2.data", "2.json"] and found.total == 6
    found.close()


def test_a_dropped_one_leaves_nothing(store: BranchStore) -> None:
    file = make(store, b"x\n")
    store.begin(file, Intent(size=3, added=2), b"x\n")
    store.drop(file)
    assert names(store) == [] and store.files == {} and store.total == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        content(file)


def test_numbers_are_not_given_twice_while_one_is_left(store: BranchStore) -> None:
    make(store)
    second = make(store)
    found, _ = again(store)
    assert make(found).number == second.number + 1
    found.close()


def test_facts_can_change(store: BranchStore) -> None:
    file = make(store, mode=0o600)
    store.describe(file, msgspec.structs.replace(file.facts, mode=0o640))
    found, _ = again(store)
    assert [each.facts.mode for each in found.files.values()] == [0o640]
    found.close()


def test_a_rebase_that_was_begun_is_known_and_can_be_forgotten(store: BranchStore) -> None:
    file = make(store, b"a\n")
    assert store.begun(file) is None
    intent = Intent(size=20, inode=3, device=4, added=3, mtime=5)
    store.begin(file, intent, b"\na\n")
    found, _ = again(store)
    (read,) = found.files.values()
    assert found.begun(read) == (intent, b"\na\n")
    found.forget(read)
    assert found.begun(read) is None and names(found) == ["1.data", "1.json"]
    found.begin(read, Intent(size=0), b"")
    assert found.begun(read) == (Intent(size=0), b"")
    found.close()


def test_ghosts_are_read_back_until_they_rest(store: BranchStore) -> None:
    number = store.haunt(GHOST)
    store.renew(number, msgspec.structs.replace(GHOST, anew=True))
    found, ghosts = again(store)
    assert ghosts == {number: msgspec.structs.replace(GHOST, anew=True)}
    assert make(found).number > number
    found.rest(number)
    found, ghosts = again(found)
    assert ghosts == {}
    found.close()


def test_a_ghost_whose_bytes_a_branch_has_is_known_as_such(store: BranchStore) -> None:
    number = store.haunt(GHOST)
    make(store, b"tail\n", follows=number)
    found, ghosts = again(store)
    assert set(ghosts) == found.carried == {number} and len(found.files) == 1
    found.close()


def test_nothing_is_there_before_the_first_branch(store: BranchStore) -> None:
    assert store.load() == {} and not os.path.exists(store.path)


# ---- bounds, and disks that refuse


def test_a_branch_is_bounded(tmp_path: Path) -> None:
    store = BranchStore(str(tmp_path), max_branch=10)
    file = make(store, b"12345678")
    with pytest.raises(OSError) as caught:
        file.write(b"abc", 8)
    assert caught.value.errno == errno.ENOSPC
    assert content(file) == b"12345678" and file.size == store.total == 8
    assert file.write(b"ab", 8) == 2 and file.write(b"XX", 0) == 2
    with pytest.raises(OSError, match="bound"):
        file.truncate(11)
    with pytest.raises(OSError, match="bound"):
        make(store, b"0123456789a")
    assert names(store) == ["1.data", "1.json"] and store.total == 10
    store.close()


def test_all_branches_are_bounded_together(tmp_path: Path) -> None:
    store = BranchStore(str(tmp_path), max_total=10)
    first, second = make(store, b"12345"), make(store, b"1234")
    for act in (lambda: first.write(b"ab", 5), lambda: second.truncate(6), lambda: make(store, b"ab")):
        with pytest.raises(OSError, match="bound") as caught:
            act()
        assert caught.value.errno == errno.ENOSPC
    assert store.total == 9 and names(store) == ["1.data", "1.json", "2.data", "2.json"]
    store.drop(first)
    assert second.write(b"abcdef", 4) == 6
    store.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_of_a_write_that_fails_nothing_is_kept(store: BranchStore, number: int) -> None:
    file = make(store, b"kept\n")
    store.pwrite = failing(number, after=3)
    with pytest.raises(OSError) as caught:
        file.write(b"lost\n", 5)
    assert caught.value.errno == number
    assert content(file) == b"kept\n" and file.size == store.total == 5
    store.pwrite = os.pwrite
    file.write(b"more\n", 5)
    assert content(file) == b"kept\nmore\n"


@pytest.mark.parametrize("after", [0, 4])
def test_a_branch_that_cannot_be_made_leaves_nothing(store: BranchStore, after: int) -> None:
    """after: bytes that the disk takes; the content fits, what is said of it does not."""
    store.pwrite = failing(errno.ENOSPC, after)
    with pytest.raises(OSError, match="No space"):
        make(store, b"data")
    assert names(store) == [] and store.files == {} and store.total == 0


def test_a_rewriting_that_fails_leaves_the_old_one(store: BranchStore) -> None:
    old = make(store, b"old\n")
    store.pwrite = failing(errno.ENOSPC, 2)
    with pytest.raises(OSError, match="No space"):
        make(store, b"new\n", follows=old.number)
    assert names(store) == ["1.data", "1.json"] and content(old) == b"old\n" and store.total == 4


def test_an_intent_that_cannot_be_written_is_none(store: BranchStore) -> None:
    file = make(store, b"a\n")
    for after in (0, 2):
        store.pwrite = failing(errno.ENOSPC, after)
        with pytest.raises(OSError, match="No space"):
            store.begin(file, Intent(size=1, added=2), b"a\n")
        assert store.begun(file) is None
        assert not [name for name in names(store) if name.endswith(".tmp")]


def test_a_file_where_the_directory_should_be_is_an_error_of_the_disk(store: BranchStore) -> None:
    Path(store.path).write_text("")
    with pytest.raises(OSError, match=r"exists|directory"):
        make(store)


def test_a_sync_brings_all_that_belongs_to_the_branch(
    store: BranchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data, what is said of it, and the names of both: without one of these the others are worth nothing."""
    file = make(store, b"a\n")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    file.sync()
    assert {os.path.basename(path) for path in synced} == {"1.data", "1.json", "branches"}
    store.drop(file)


# ---- what others have left there


@pytest.mark.parametrize("kind", ["json", "ghost"])
def test_files_of_a_newer_format_are_refused(store: BranchStore, kind: str) -> None:
    make(store)
    store.haunt(GHOST)
    path = next(Path(store.path).glob(f"*.{kind}"))
    path.write_bytes(path.read_bytes().replace(b'"format":%d' % FORMAT, b'"format":%d' % (FORMAT + 1)))
    with pytest.raises(GuardError, match=f"{path.name}: of format {FORMAT + 1}, this guardfs knows {FORMAT}"):
        again(store)


def test_an_intent_of_a_newer_format_is_refused(store: BranchStore) -> None:
    file = make(store)
    store.begin(file, Intent(size=0, format=FORMAT + 1), b"")
    with pytest.raises(GuardError, match=r"1\.merge: of format"):
        store.begun(file)


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"format":1}', b'{"format":"x"}', b"\xff", bytes(40)])
@pytest.mark.parametrize("kind", ["json", "ghost"])
def test_a_broken_file_is_named_in_one_line(store: BranchStore, kind: str, broken: bytes) -> None:
    store.haunt(GHOST)
    make(store)
    make(store)
    path = next(Path(store.path).glob(f"*.{kind}"))
    path.write_bytes(broken)
    store.close()
    with none_left_open(), pytest.raises(GuardError) as caught:
        again(store)
    assert str(path) in caught.value.what and "\n" not in caught.value.what and caught.value.mend


def test_what_was_never_finished_is_removed_and_what_is_not_ours_is_left(store: BranchStore) -> None:
    make(store, b"a\n")
    for name in ("7.data", "8.out", "9.merge", "1.merge.tmp", "10.json.tmp", "11.ghost.tmp"):
        (Path(store.path) / name).write_bytes(b"{")
    (Path(store.path) / "README").write_text("an operator's")
    found, ghosts = again(store)
    assert names(found) == ["1.data", "1.json", "README"] and list(found.files) == [1] and ghosts == {}
    found.close()
