"""What a daemon leaves to the next one: records that are whole or not there, and a request judged by what it did."""

from __future__ import annotations

import errno
import os
import pickle
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardfs.fence.events import Actor, Event, Kind
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.machine import Machine
from guardfs.mount.backing import Backing
from guardfs.mount.memory import store as memory
from guardfs.mount.memory.again import Again
from guardfs.mount.memory.deposit import Deposit
from guardfs.mount.memory.fences import FenceLedger, place_of, restore
from guardfs.mount.memory.requests import OPERATIONS, RESENT, Left, Running
from guardfs.mount.memory.restore import records_of
from guardfs.mount.memory.store import Store, Word
from guardfs.transcript.meta import RecordMeta


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


def contents(fd: int) -> list[tuple[int, bytes]]:
    """What the next daemon finds."""
    store = Store(fd)
    assert store.known
    found = sorted((record.kind, record.data) for record in store.scan())
    store.close()
    return found


def test_what_was_put_is_found_and_what_was_freed_is_not(fd: int) -> None:
    store, chance = Store(fd), random.Random(1)
    kept: dict[int, tuple[int, bytes]] = {}
    assert not store.known
    for _ in range(3000):
        if kept and chance.random() < 0.5:
            address = chance.choice(list(kept))
            kind, data = kept.pop(address)
            if chance.random() < 0.5:
                store.free(address)
            else:
                new = bytes([chance.randrange(256)]) * chance.randrange(1, 3000)
                kept[store.replace(address, kind, new)] = kind, new
        else:
            kind, data = chance.randrange(1, 9), os.urandom(chance.randrange(1, 5000))
            kept[store.put(kind, data)] = kind, data
    end = store.words[Word.END]
    assert contents(fd) == sorted(kept.values())
    for address in kept:
        store.free(address)
    for _ in range(1000):
        store.free(store.put(1, b"x" * 100))
    assert store.words[Word.END] == end, "room that was freed is not used again"
    assert contents(fd) == []


def test_a_record_grows_as_far_as_its_room(fd: int) -> None:
    store = Store(fd)
    address = store.put(4, b"head", 40)
    count = 0
    while store.append(address, b"0123456789"):
        count += 1
    assert count >= 4
    assert contents(fd) == [(4, b"head" + b"0123456789" * count)]


def test_memory_of_another_format_is_not_read(fd: int) -> None:
    store = Store(fd)
    store.put(1, b"x")
    store.words[Word.FORMAT] += 1
    assert not Store(fd).known
    assert list(Store(fd).scan()) == []


def test_a_broken_memory_is_an_error_and_a_full_one_too(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(fd)
    address = store.put(1, b"x")
    store.words[address >> 3] = 0xFF00
    with pytest.raises(ValueError, match="no slot"):
        records_of(Store(fd))
    monkeypatch.setattr(memory, "SIZE", store.words[Word.END])
    with pytest.raises(memory.MemoryFullError):
        store.put(1, b"x")
    with pytest.raises(memory.MemoryFullError):
        store.put(1, bytes(1 << 23))


def test_the_request_at_hand_and_its_notes(fd: int) -> None:
    running = Running(Store(fd))
    assert Running(Store(fd)).left() is None
    running.begin(OPERATIONS.index("write"), 77 | RESENT, 5, 1000)
    running.branch(3, 200)
    found = Running(Store(fd)).left()
    assert found is not None
    assert found[:6] == (77, "write", False, found.result, 3, 200) and found.before[:2] == (5, 1000)
    running.done(-errno.ENOSPC)
    found = Running(Store(fd)).left()
    assert found is not None and found.done and found.result == -errno.ENOSPC
    running.begin(OPERATIONS.index("unlink"), 79, 6)
    note = ("unlink", 1, 1, b"a.jsonl", 0, 7, None, 1, 2, 3, 0, 0, None, None, None, None)
    more = (False, False, "allow", False, False, False, 0, None, None, False)
    serials = [running.note((running.next, 79, *note, *more)) for _ in range(3)]
    assert serials == [1, 2, 3]
    running.settled(1)
    assert [(each.serial, each.unique) for each in Running(Store(fd)).notes()] == [(2, 79), (3, 79)]
    running.settled(3)
    assert Running(Store(fd)).notes() == []
    long = ("unlink", 1, 1, b"a" * 30_000, *note[4:], *more)
    assert running.note((running.next, 79, *long)) == 0, "what has no room is not kept"
    assert running.note((running.next, 79, *note, *more)) == 4


A, B = Fingerprint(1, 2, 100, 5, 5), Fingerprint(1, 2, 200, 6, 6)
OWNER = Actor(10, 1, 11, False, "gateway:run")
OTHER = Actor(20, 2, 20, True, "cron")


def turn(machine: Machine, times: int, name: bytes = b"t.jsonl") -> None:
    """Lock cycles that open a fence and refresh it, with another's appends."""
    mono = 0

    def tell(kind: Kind, actor: Actor, after: Fingerprint | None = None) -> None:
        nonlocal mono
        mono += 1
        record = RecordMeta(type="message", id=f"{mono:08x}")
        records = (record,) if kind is Kind.APPEND else ()
        before = A if kind is Kind.APPEND else None
        machine.apply(Event(kind, name, actor, mono, mono, before, after, records))

    for number in range(times):
        tell(Kind.LOCK_CREATED, OWNER)
        if machine.open_fences:
            tell(Kind.LOOK, OWNER, A)
        else:
            tell(Kind.OPEN_READ, OWNER)
        if number % 3 == 1:
            tell(Kind.APPEND, OTHER, B)
        tell(Kind.LOOK, OWNER, A)
        tell(Kind.LOCK_REMOVED, OWNER)


def test_a_picture_names_a_kind_by_its_number_whatever_the_python() -> None:
    """Python 3.11.2, which Debian 12 has, would have it looked up by `getattr`, which a picture may not do."""
    kept = pickle.dumps(Kind.RENAME_OVER)
    assert b"getattr" not in kept and b"RENAME_OVER" not in kept
    assert pickle.loads(kept) is Kind.RENAME_OVER


@pytest.mark.parametrize("times", [1, 2, 7, 60])
def test_fences_are_the_same_for_the_next_machine(fd: int, times: int) -> None:
    store, machine = Store(fd), Machine()
    machine.restore({}, 500)
    machine.journal = FenceLedger(store, machine)
    turn(machine, times)
    again = Machine()
    again.restore({}, 10_500)
    for record in records_of(Store(fd)).get(memory.Kind.PLACE, []):
        restore(again, place_of(record))
    views = [list(each.fences(1000)) for each in (machine, again)]
    assert views[0] == views[1] and len(views[0]) == 1
    assert machine.processes() == again.processes()
    assert machine.tokens() == again.tokens()
    for each in (machine, again):
        turn(each, 2)
    assert list(machine.fences(9000)) == list(again.fences(9000))
    event = Event(Kind.EXIT, b"", OWNER._replace(main=True), 9999, 9999)
    effects = [each.apply(event).effects for each in (machine, again)]
    assert effects[0] == effects[1] and machine.places == again.places == 0
    assert contents(fd) == [], "what nobody relies on takes room"


def begun(op: str, *before: int) -> Left:
    return Left(1, op, False, 0, 0, 0, (*before, 0, 0))


def once(left: Left) -> Again:
    return Again(Backing(), left)


def test_an_append_is_done_once_whatever_was_done_before(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    data = b'{"id":"1"}\n'
    for there in (b"", data[:4], data, b"foreign\n", b"foreign\n" + data):
        path.write_bytes(b"before\n" + there)
        for flags in (os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_APPEND):
            fd = os.open(path, flags)
            again = once(begun("write", 1, 7))
            assert again.pwrite(fd, data, 0) == len(data)
            expected = {b"": data, data[:4]: data, b"foreign\n": b"foreign\n" + data}.get(there, there)
            assert path.read_bytes() == b"before\n" + expected
            assert again.pwrite(fd, b"next", 0) == 4, "only the first call can have been made before"
            os.close(fd)
            path.write_bytes(b"before\n" + there)


def test_a_write_at_an_offset_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_WRONLY)
    assert once(begun("write", 1, 10)).pwrite(fd, b"ab", 4) == 2
    os.close(fd)
    assert path.read_bytes() == b"0123ab6789"


@pytest.mark.parametrize("done", [False, True])
def test_names_come_and_go_once(tmp_path: Path, done: bool) -> None:
    root = os.open(tmp_path, os.O_RDONLY)

    def twice(op: str, act: Callable[[Backing], object], *before: int) -> None:
        if done:
            act(Backing())
        act(once(begun(op, *before)))

    now = 0
    twice("mkdir", lambda below: below.mkdir(b"d", 0o700, dir_fd=root), now)
    twice("mknod", lambda below: below.mknod(b"p", stat.S_IFIFO | 0o600, 0, dir_fd=root), now)
    twice("symlink", lambda below: below.symlink(b"to", b"s", dir_fd=root), now)
    fds: list[int] = []
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    twice("create", lambda below: fds.append(below.open(b"f", flags, 0o600, dir_fd=root)), now)
    twice(
        "link",
        lambda below: below.link(b"/proc/self/fd/%d" % fds[-1], b"l", dst_dir_fd=root, follow_symlinks=True),
        now,
    )
    inode = os.stat(tmp_path / "f").st_ino
    twice("rename", lambda below: below.rename(b"f", b"g", src_dir_fd=root, dst_dir_fd=root), inode, 0)
    assert sorted(os.listdir(tmp_path)) == ["d", "g", "l", "p", "s"]
    for name in (b"g", b"p", b"s"):
        number = os.lstat(tmp_path / name.decode()).st_ino
        twice("unlink", lambda below, name=name: below.unlink(name, dir_fd=root), number)  # type: ignore[misc]
    twice("rmdir", lambda below: below.rmdir(b"d", dir_fd=root), os.stat(tmp_path / "d").st_ino)
    assert os.listdir(tmp_path) == ["l"]
    for fd in (*fds, root):
        os.close(fd)


def test_what_another_did_meanwhile_is_not_ones_own(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "lock").write_text("another's")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with pytest.raises(FileExistsError):
        once(begun("create", 0)).open(b"lock", flags, 0o600, dir_fd=root)
    with pytest.raises(FileExistsError):
        once(begun("mkdir", 1 << 62)).mkdir(b"lock", 0o700, dir_fd=root)
    (tmp_path / "name").write_text("another file")
    once(begun("unlink", 12345)).unlink(b"name", dir_fd=root)
    assert (tmp_path / "name").exists(), "the one that was to be removed is gone already"
    with pytest.raises(FileNotFoundError):
        once(begun("rename", 12345, 0)).rename(b"absent", b"new", src_dir_fd=root, dst_dir_fd=root)
    os.close(root)


def test_files_without_a_name_wait_for_the_next_daemon(tmp_path: Path) -> None:
    import socket

    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = ends[0].fileno(), ends[1].fileno()
    first = Deposit(fds)
    needed = {3, 150}
    first.needed = needed.__contains__
    for node in range(200):
        path = tmp_path / "file"
        path.write_text(f"text {node}")
        fd = os.open(path, os.O_RDWR)
        path.unlink()
        first.put(node, fd)
        os.close(fd)
    first.close()
    second = Deposit(fds)
    found = second.all()
    assert needed <= found.keys() and len(found) < 150
    assert os.pread(found[150], 20, 0) == b"text 150"
    for fd in found.values():
        os.close(fd)
    second.close()
    third = Deposit(fds)
    again = third.all()
    assert again.keys() == found.keys(), "what was taken is there once more"
    for fd in again.values():
        os.close(fd)
    third.close()
    for end in ends:
        end.close()
