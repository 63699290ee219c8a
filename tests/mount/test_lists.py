"""Lists of directories: the kernel keeps them, and nobody is sent an old one for a new one."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.guard import Guard
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

MANY = 3000
"""Names that fill several of the kernel's buffers."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
for _name in ("readdir", "telldir", "closedir"):
    getattr(_libc, _name).argtypes = (ctypes.c_void_p,)
_libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)


class Stream:
    """opendir(3) and what goes with it."""

    def __init__(self, path: Path) -> None:
        self._dir = _libc.opendir(os.fsencode(path))
        assert self._dir

    def read(self) -> str | None:
        entry = _libc.readdir(self._dir)
        return None if not entry else os.fsdecode(ctypes.string_at(entry + 19))  # d_name of struct dirent

    def rest(self) -> list[str]:
        return [name for name in iter(self.read, None) if name not in (".", "..")]

    def tell(self) -> int:
        return int(_libc.telldir(self._dir))

    def seek(self, position: int) -> None:
        _libc.seekdir(self._dir, position)

    def close(self) -> None:
        _libc.closedir(self._dir)


@contextmanager
def stream(path: Path) -> Iterator[Stream]:
    found = Stream(path)
    try:
        yield found
    finally:
        found.close()


def fill(directory: Path, count: int = MANY) -> set[str]:
    names = {f"{number:05d}-{'x' * 40}.txt" for number in range(count)}
    for name in names:
        (directory / name).touch()
    return names


def requests(guard: Guard) -> dict[str, int]:
    found: dict[str, int] = guard.status()["operations"]
    return {name: found.get(name, 0) for name in ("opendir", "readdir", "releasedir")}


def test_a_list_that_is_known_is_not_asked_for_again(guard: Guard) -> None:
    (guard.directory / "sub").mkdir()
    fill(guard.directory / "sub", 20)
    assert len(os.listdir(guard.directory / "sub")) == 20
    before = requests(guard)
    for _ in range(50):
        assert len(os.listdir(guard.directory / "sub")) == 20
    assert requests(guard) == before
    assert before["opendir"] == before["releasedir"] == 0


def test_each_list_is_asked_for_where_the_log_is_to_have_it(start_guard: StartGuard) -> None:
    guard = start_guard("--audit-level", "all")
    fill(guard.directory, 5)
    for _ in range(10):
        assert len(os.listdir(guard.directory)) == 5
    assert len([event for event in guard.settle() if event["op"] == "list" and event["path"] == "."]) == 10


def test_a_reader_goes_on_in_the_list_that_it_began(guard: Guard) -> None:
    names = fill(guard.directory)
    with stream(guard.directory) as first, stream(guard.directory) as second:
        begun = [first.read() for _ in range(10)], [second.read() for _ in range(100)]
        gone = {name for name in sorted(names)[::2] if name not in begun[0] + begun[1]}
        for name in gone:
            (guard.directory / name).unlink()
        (guard.directory / "new.txt").touch()
        for some, rest in zip(begun, (first.rest(), second.rest()), strict=True):
            found = [name for name in some if name not in (".", "..")] + rest
            assert len(found) == len(set(found))
            assert names - gone <= set(found) <= names | {"new.txt"}
    assert set(os.listdir(guard.directory)) == (names - gone) | {"new.txt"}


def test_the_list_after_a_change_has_it_though_another_was_being_read(guard: Guard) -> None:
    names = fill(guard.directory)
    for turn in range(20):
        with stream(guard.directory) as reader:
            reader.read()
            (guard.directory / f"new-{turn}").touch()
            assert f"new-{turn}" in os.listdir(guard.directory)
            reader.rest()
        assert set(os.listdir(guard.directory)) == names | {f"new-{each}" for each in range(turn + 1)}


def test_a_place_in_a_list_is_found_again(guard: Guard) -> None:
    fill(guard.directory)
    with stream(guard.directory) as reader:
        for _ in range(1500):
            reader.read()
        place = reader.tell()
        rest = reader.rest()
        reader.seek(place)
        assert reader.rest() == rest
        assert len(rest) >= MANY - 1500


def test_a_list_is_read_on_after_the_daemon_has_died(start_guard: StartGuard) -> None:
    guard = start_guard()
    guard.expected = ["the daemon ended with signal SIGKILL", r"signal SIGKILL\)"]
    names = fill(guard.directory)
    with stream(guard.directory) as reader:
        begun = [reader.read() for _ in range(10)]
        os.kill(guard.daemon, signal.SIGKILL)
        found = [name for name in begun if name not in (None, ".", "..")] + reader.rest()
    assert len(found) == len(names) and set(found) == names
    wait_for(lambda: guard.status()["daemon"]["restarts"] == 1, "another daemon")
    guard.daemon = guard.status()["daemon"]["pid"]
    (guard.directory / "new.txt").touch()
    assert set(os.listdir(guard.directory)) == names | {"new.txt"}


def test_an_open_directory_is_brought_to_the_disk_and_worked_in(guard: Guard) -> None:
    (guard.directory / "sub").mkdir()
    fd = os.open(guard.directory / "sub", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(os.open("made.txt", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.fsync(fd)
        assert os.listdir(fd) == ["made.txt"]
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
        (guard.directory / "sub/made.txt").unlink()
        (guard.directory / "sub").rmdir()
        assert os.listdir(fd) == []
        os.fsync(fd)
    finally:
        os.close(fd)
