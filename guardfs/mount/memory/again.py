"""System calls for a request that an earlier daemon was at when it died: what that has done is not done twice.

Only one request can have been acted upon without its result being known, and nothing was done through the mount since.
So each call compares the file with what it was before, and does what is left to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

from guardfs.mount.backing import Backing
from guardfs.mount.memory.requests import Left

_EXCHANGE = 2  # RENAME_EXCHANGE of <linux/fs.h>
_CLOCK_NS = 20_000_000
"""How far the clock of a file system may lag behind the wall clock: two ticks of the slowest kernel."""

_MAX_SEARCH = 64 << 20
"""Bytes behind the former end of a file that are looked through for what was appended."""


class Again(Backing):
    """*below*, but for the calls that must not be made twice."""

    def __init__(self, below: Backing, left: Left) -> None:
        for name in dir(type(below)):
            if not name.startswith("_"):
                setattr(self, name, getattr(below, name))
        self._below = below
        self._before = left.before
        self._first = True
        for name in (
            "pwrite open mkdir mknod symlink link unlink rmdir rename rename_with_flags setxattr removexattr"
        ).split():
            setattr(self, name, getattr(self, f"_{name}"))

    def _once(self) -> bool:
        """Whether this is the first call that changes something: only that can have been made before."""
        first, self._first = self._first, False
        return first

    # ---- contents

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """At an offset twice is as good as once. At the end of a file: unless it is there already."""
        if not self._once() or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
            return self._below.pwrite(fd, data, offset)
        before = self._before[1]
        size = self._below.fstat(fd).st_size
        if size > before:
            behind = _read(fd, min(size - before, max(len(data), _MAX_SEARCH)), before)
            if data in behind:
                return len(data)
            if data.startswith(behind):  # the write was cut short
                done = len(behind)
                return done + self._below.pwrite(fd, data[done:], offset)
        return self._below.pwrite(fd, data, offset)

    # ---- names that are made

    def _open(self, path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & os.O_EXCL or not self._once():
            return self._below.open(path, flags, mode, dir_fd=dir_fd)
        try:
            return self._below.open(path, flags, mode, dir_fd=dir_fd)
        except FileExistsError:
            fd = self._below.open(path, flags & ~(os.O_CREAT | os.O_EXCL), dir_fd=dir_fd)
            st = self._below.fstat(fd)
            if st.st_size == 0 and self._recent(st):
                return fd
            self._below.close(fd)
            raise

    def _recent(self, st: os.stat_result) -> bool:
        return st.st_ctime_ns >= self._before[0] - _CLOCK_NS

    def _made(self, call: Any, name: bytes, directory: int | None, *args: Any, **more: Any) -> None:
        try:
            call(*args, **more)
        except FileExistsError:
            if not self._once() or not self._recent(
                self._below.stat(name, dir_fd=directory, follow_symlinks=False)
            ):
                raise

    def _mkdir(self, path: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._made(self._below.mkdir, path, dir_fd, path, mode, dir_fd=dir_fd)

    def _mknod(self, path: bytes, mode: int, device: int = 0, *, dir_fd: int | None = None) -> None:
        self._made(self._below.mknod, path, dir_fd, path, mode, device, dir_fd=dir_fd)

    def _symlink(self, target: bytes, path: bytes, *, dir_fd: int | None = None) -> None:
        self._made(self._below.symlink, path, dir_fd, target, path, dir_fd=dir_fd)

    def _link(self, source: bytes, path: bytes, *, dst_dir_fd: int | None = None, **more: Any) -> None:
        self._made(self._below.link, path, dst_dir_fd, source, path, dst_dir_fd=dst_dir_fd, **more)

    # ---- names that go

    def _is(self, name: bytes, dir_fd: int | None, inode: int) -> bool:
        try:
            return self._below.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino == inode
        except FileNotFoundError:
            return False

    def _unlink(self, path: bytes, *, dir_fd: int | None = None) -> None:
        self._remove(self._below.unlink, path, dir_fd)

    def _rmdir(self, path: bytes, *, dir_fd: int | None = None) -> None:
        self._remove(self._below.rmdir, path, dir_fd)

    def _remove(self, call: Any, name: bytes, dir_fd: int | None) -> None:
        inode = self._before[0]
        if self._once() and inode and not self._is(name, dir_fd, inode):
            return
        call(name, dir_fd=dir_fd)

    def _rename(
        self, name: bytes, new_name: bytes, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        if not self._moved(name, src_dir_fd, new_name, dst_dir_fd):
            self._below.rename(name, new_name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def _rename_with_flags(self, source: int, name: bytes, target: int, new_name: bytes, flags: int) -> None:
        if not self._moved(name, source, new_name, target, exchange=flags & _EXCHANGE != 0):
            self._below.rename_with_flags(source, name, target, new_name, flags)

    def _moved(
        self,
        name: bytes,
        source: int | None,
        new_name: bytes,
        target: int | None,
        *,
        exchange: bool = False,
    ) -> bool:
        inode, other = self._before[0], self._before[1]
        if not self._once() or not inode or inode == other or not self._is(new_name, target, inode):
            return False
        return exchange or not self._is(name, source, inode)

    # ---- attributes

    def _setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        try:
            self._below.setxattr(path, name, value, flags)
        except FileExistsError:
            if not self._once() or self._below.getxattr(path, name) != value:
                raise

    def _removexattr(self, path: bytes, name: bytes) -> None:
        try:
            self._below.removexattr(path, name)
        except OSError as error:
            if error.errno != errno.ENODATA or not self._once():
                raise


def _read(fd: int, size: int, offset: int) -> bytes:
    """Bytes of the file that the descriptor *fd*, which may be for writing only, leads to."""
    again = os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(again, size, offset)
    finally:
        os.close(again)
