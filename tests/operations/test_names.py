"""Names: lookups, links, renames, and which file a node id means afterwards."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from guardfs.audit.event import Kind
from guardfs.mount.caller import Caller
from guardfs.mount.operations.parts import Later
from tests.operations.conftest import MakeFs
from tests.support.direct import ROOT, Direct, finish


def test_a_name_that_is_not_there(fs: Direct) -> None:
    assert fs.find(b"absent.jsonl") == 0
    (look,) = fs.log.operations("look")
    assert (look.errno, look.path, look.kind) == (errno.ENOENT, b"absent.jsonl", Kind.TRANSCRIPT)


def test_hard_links_share_a_node(fs: Direct) -> None:
    fs.make(b"a", b"x")
    node = fs.find(b"a")
    fs.link(node, ROOT, b"b", fs.me)
    assert fs.find(b"b") == node
    fs.unlink(ROOT, b"a", fs.me)
    assert fs.find(b"b") == node
    assert fs.stat_node(fs.node(node)).st_nlink == 1


def test_a_reused_inode_number_is_another_node(fs: Direct) -> None:
    """ext4 gives a freed inode number to the next file made."""
    seen = set()
    for number in range(20):
        name = b"f%d" % number
        handle = fs.make(name)
        seen.add(fs.find(name))
        fs.unlink(ROOT, name, fs.me)
        fs.release(handle)
    assert len(seen) == 20


def test_a_file_replaced_below_is_another_node(fs: Direct) -> None:
    (fs.directory / "t.jsonl").write_text("old")
    before = fs.find(b"t.jsonl")
    (fs.directory / "other").write_text("new")
    os.rename(fs.directory / "other", fs.directory / "t.jsonl")
    after = fs.find(b"t.jsonl")
    assert after not in (0, before)
    assert [notice.fields["change"] for notice in fs.log.notices("unseen")] == ["replaced"]


def test_an_unlinked_file_can_still_be_asked_about(fs: Direct) -> None:
    handle = fs.make(b"u", b"content")
    node = fs.find(b"u")
    fs.unlink(ROOT, b"u", fs.me)
    assert fs.getattr(node, fs.me).st_nlink == 0
    fs.release(handle)
    assert fs.getattr(node, fs.me).st_size == 7
    fs.change(node, mode=0o600)
    fs.forget([(node, fs.node(node).nlookup)])
    with pytest.raises(OSError) as caught:
        fs.getattr(node, fs.me)
    assert caught.value.errno == errno.ESTALE


def test_a_node_that_was_forgotten_is_stale(fs: Direct) -> None:
    fs.release(fs.make(b"f"))
    node = fs.find(b"f")
    fs.forget([(node, fs.node(node).nlookup)])
    with pytest.raises(OSError) as caught:
        fs.open(node, os.O_RDONLY, fs.me)
    assert caught.value.errno == errno.ESTALE
    assert fs.find(b"f") not in (0, node)


def test_rename_over_another(fs: Direct) -> None:
    fs.make(b"new", b"new")
    old = fs.make(b"old.jsonl", b"old")
    moved, replaced = fs.find(b"new"), fs.find(b"old.jsonl")
    fs.rename(ROOT, b"new", ROOT, b"old.jsonl", 0, fs.me)
    assert fs.find(b"old.jsonl") == moved
    assert fs.node(moved).kind is Kind.TRANSCRIPT
    assert fs.getattr(replaced, fs.me).st_nlink == 0
    assert bytes(finish(fs.read(old, 0, 10))) == b"old"
    (told,) = fs.log.operations("rename")
    assert (told.path, told.to, told.kind) == (b"new", b"old.jsonl", Kind.TRANSCRIPT)


def test_rename_of_two_links_of_one_file_does_nothing(fs: Direct) -> None:
    fs.make(b"a")
    fs.link(fs.find(b"a"), ROOT, b"b", fs.me)
    fs.rename(ROOT, b"a", ROOT, b"b", 0, fs.me)
    assert sorted(os.listdir(fs.directory)) == ["a", "b"]
    assert fs.find(b"a") == fs.find(b"b") != 0


def test_exchange_and_noreplace(fs: Direct) -> None:
    fs.make(b"a", b"A")
    fs.make(b"b.jsonl", b"B")
    a, b = fs.find(b"a"), fs.find(b"b.jsonl")
    with pytest.raises(OSError) as caught:
        fs.rename(ROOT, b"a", ROOT, b"b.jsonl", pyfuse3.RENAME_NOREPLACE, fs.me)
    assert caught.value.errno == errno.EEXIST
    fs.rename(ROOT, b"a", ROOT, b"b.jsonl", pyfuse3.RENAME_EXCHANGE, fs.me)
    assert (fs.find(b"a"), fs.find(b"b.jsonl")) == (b, a)
    with pytest.raises(OSError) as caught:
        fs.rename(ROOT, b"a", ROOT, b"c", 4, fs.me)  # RENAME_WHITEOUT
    assert caught.value.errno == errno.EINVAL


def test_names_below_a_directory_that_was_moved(fs: Direct) -> None:
    fs.mkdir(ROOT, b"d", 0o755, fs.me)
    (fs.directory / "d" / "f").write_text("x")
    node = fs.find(b"d/f")
    fs.rename(ROOT, b"d", ROOT, b"e", 0, fs.me)
    assert fs.node(node).path() == b"e/f"
    assert fs.getattr(node, fs.me).st_size == 1


def test_more_nodes_than_descriptors(make_fs: MakeFs) -> None:
    fs = make_fs(descriptors=16)
    nodes = {}
    for number in range(100):
        (fs.directory / f"d{number}").mkdir()
        (fs.directory / f"d{number}" / "f").write_text(f"{number}")
        nodes[number] = fs.find(b"d%d/f" % number)
    for number in [*range(100), *reversed(range(100))]:
        assert fs.getattr(nodes[number], fs.me).st_size == len(str(number))
        fs.change(nodes[number], mode=0o640)
        assert len(fs.fds) <= 16
    fs.rename(fs.find(b"d3"), b"f", fs.find(b"d97"), b"moved", 0, fs.me)
    assert (fs.directory / "d97" / "moved").read_text() == "3"


def test_an_evicted_file_that_was_replaced_is_stale_not_another(make_fs: MakeFs) -> None:
    fs = make_fs(descriptors=16)
    (fs.directory / "f").write_text("first")
    node = fs.find(b"f")
    fs.fds.of(fs.node(node))
    for number in range(40):
        (fs.directory / f"x{number}").write_text("")
        fs.fds.of(fs.node(fs.find(b"x%d" % number)))
    (fs.directory / "g").write_text("second, longer")
    os.rename(fs.directory / "g", fs.directory / "f")
    with pytest.raises(OSError) as caught:
        fs.change(node, mode=0o600)
    assert caught.value.errno == errno.ESTALE
    assert (fs.directory / "f").stat().st_mode & 0o777 != 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act for others")
def test_what_is_made_for_others_belongs_to_them(fs: Direct) -> None:
    other = Caller(1234, 5678, os.getpid(), 0o027)
    fs.create(ROOT, b"f", 0o4777, os.O_WRONLY | os.O_CREAT, other)
    fs.mkdir(ROOT, b"d", 0o777, other)
    fs.symlink(ROOT, b"l", b"target", other)
    fs.mknod(ROOT, b"p", stat.S_IFIFO | 0o666, 0, other)
    for name, mode in (("f", 0o4750), ("d", 0o750), ("l", 0o777), ("p", 0o640)):
        info = os.lstat(fs.directory / name)
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 5678, mode), name


def test_create_never_opens_what_appeared_meanwhile_for_the_kernel_has_not_checked_who_may(
    fs: Direct,
) -> None:
    (fs.directory / "f").write_text("there")
    asked: list[tuple[int, bytes]] = []
    fs.forget_entry = lambda parent, name: asked.append((parent, name))
    with pytest.raises(OSError) as caught:
        fs.create(ROOT, b"f", 0o600, os.O_RDWR | os.O_CREAT, fs.me)
    assert caught.value.errno == errno.ESTALE  # the kernel looks the name up again, and opens what it finds
    assert asked == [(ROOT, b"f")]
    with pytest.raises(OSError) as caught:
        fs.create(ROOT, b"f", 0o600, os.O_RDWR | os.O_CREAT | os.O_EXCL, fs.me)
    assert caught.value.errno == errno.EEXIST
    assert (fs.directory / "f").read_text() == "there"


def test_a_create_that_fails_half_way_leaves_no_descriptor(make_fs: MakeFs) -> None:
    fs = make_fs()

    def fail(*args: Any) -> Any:
        raise OSError(errno.EPERM, "no")

    fs.below.fstat = fail  # type: ignore[assignment]
    with pytest.raises(OSError):
        fs.create(ROOT, b"f", 0o600, os.O_RDWR | os.O_CREAT, fs.me)
    del fs.below.fstat
    assert fs.handles == {}


def test_times_to_the_nanosecond_and_left_alone(fs: Direct) -> None:
    fs.make(b"f")
    node = fs.find(b"f")
    fs.change(node, atime_ns=1_234_567_890_123_456_789, mtime_ns=-1)
    info = (fs.directory / "f").stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (1_234_567_890_123_456_789, -1)
    fs.change(node, mtime_ns=42)
    info = (fs.directory / "f").stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (1_234_567_890_123_456_789, 42)


def test_extended_attributes(fs: Direct) -> None:
    fs.make(b"f")
    node = fs.find(b"f")
    fs.request_flags = os.XATTR_CREATE
    fs.setxattr(node, b"user.note", b"v", fs.me)
    with pytest.raises(OSError) as caught:
        fs.setxattr(node, b"user.note", b"w", fs.me)
    assert caught.value.errno == errno.EEXIST
    assert fs.getxattr(node, b"user.note", fs.me) == b"v"
    assert fs.listxattr(node, fs.me) == [b"user.note"]
    fs.removexattr(node, b"user.note", fs.me)
    with pytest.raises(OSError) as caught:
        fs.getxattr(node, b"user.note", fs.me)
    assert caught.value.errno == errno.ENODATA
    assert fs.getxattr(ROOT, b"user.guardfs.status", fs.me) == b"{}"
    assert b"user.guardfs.status" not in fs.listxattr(ROOT, fs.me)


def test_lists(fs: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [b"a", b"b.jsonl", b"\xff\xfe", "ä".encode()]
    for name in names:
        fs.release(fs.make(name))
    fs.mkdir(ROOT, b"sub", 0o755, fs.me)
    sent: list[tuple[bytes, int, int]] = []

    def reply(token: object, name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
        if len(sent) % 4 == 3 and token == "small":  # the kernel's buffer is full
            sent.append((b"", 0, 0))
            return False
        sent.append((name, stat.S_IFMT(attributes.st_mode), next_id))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    finish(fs.readdir(ROOT, 0, "large"))
    assert sorted(name for name, _, _ in sent) == sorted([b".", b"..", b"sub", *names])
    assert {name: kind for name, kind, _ in sent}[b"sub"] == stat.S_IFDIR
    whole, sent[:] = [name for name, _, _ in sent], []
    position, seen = 0, []
    while True:
        sent.clear()
        finish(fs.readdir(ROOT, position, "small"))
        rows = [row for row in sent if row[0]]
        if not rows:
            break
        seen += [name for name, _, _ in rows]
        position = rows[-1][2]
    assert seen == whole


def test_a_list_that_is_older_than_a_change_is_forgotten_before_its_reader_is_at_the_end(
    fs: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel keeps what it was sent once it knows that this was all, and may take it for newer than it is."""
    told: list[int] = []
    fs.forget_now = told.append
    fs.log.wanted = False
    fs.nodes.root.watched = True
    places: list[int] = []

    def reply(token: object, name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
        places.append(next_id)
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)

    def begin() -> int:
        places.clear()
        assert fs.readdir(ROOT, 0, None) is None
        return places[-1]

    assert fs.readdir(ROOT, begin(), None) is None
    end = begin()
    fs.mkdir(ROOT, b"sub", 0o755, fs.me)
    late = fs.readdir(ROOT, end, None)
    assert isinstance(late, Later) and told == []
    finish(late)
    assert told == [ROOT]
    fs.log.wanted = True  # each list is to be seen
    assert isinstance(fs.readdir(ROOT, begin(), None), Later)
    fs.log.wanted = False
    fs.nodes.root.watched = False  # nobody would tell
    assert isinstance(fs.readdir(ROOT, begin(), None), Later)
    fs.nodes.root.watched = True
    assert isinstance(fs.readdir(ROOT, end + 1, None), Later)  # nobody knows that list any more
    assert len(fs.lists) == 0


def test_listing_a_subdirectory_does_not_touch_what_lies_above(fs: Direct, tmp_path: Path) -> None:
    """The directory above may be the mount itself: a call to it from the daemon would wait for the daemon."""
    fs.mkdir(ROOT, b"sub", 0o755, fs.me)
    touched = []
    real = fs.below.stat

    def watched(path: Any, **more: Any) -> os.stat_result:
        touched.append(path)
        return real(path, **more)

    fs.below.stat = watched
    fs.find(b"sub")
    touched.clear()
    fd = os.open(fs.directory / "sub", os.O_RDONLY)
    rows = fs._rows(fd, 77)
    assert (b"..", 77) in [row[:2] for row in rows]
    assert b".." not in touched
