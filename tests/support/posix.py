"""The same system call on two directories, and what can be compared of its outcome.

`Side` has one method an operation; each returns what a program could observe, in a form that must be equal on
a plain directory and on a guarded one. An OSError becomes the name of its errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

Observed = Any


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Run the calling thread's file operations as user and group *uid*: fsuid, fsgid and the capabilities
    that go with them (setfsuid(2), credentials(7))."""
    if uid == 0:
        yield
        return
    _libc.setfsgid(uid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Side:
    """One of the two directories. *base* is its path; paths given to the methods are relative to it."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.open_files: list[int] = []

    def do(self, operation: str, *args: Any) -> Observed:
        """Run one operation; its result, or the name of the errno."""
        try:
            return getattr(self, operation)(*args)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def close_all(self) -> None:
        while self.open_files:
            os.close(self.open_files.pop())

    def _at(self, path: bytes) -> bytes:
        return self.base + b"/" + path

    # ---- names

    def create(self, path: bytes, flags: int, mode: int) -> Observed:
        fd = os.open(self._at(path), flags | os.O_CREAT, mode)
        self.open_files.append(fd)
        return len(self.open_files)

    def open(self, path: bytes, flags: int) -> Observed:
        self.open_files.append(os.open(self._at(path), flags))
        return len(self.open_files)

    def mkdir(self, path: bytes, mode: int) -> Observed:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: bytes) -> Observed:
        os.rmdir(self._at(path))

    def unlink(self, path: bytes) -> Observed:
        os.unlink(self._at(path))

    def symlink(self, target: bytes, path: bytes) -> Observed:
        os.symlink(target, self._at(path))

    def readlink(self, path: bytes) -> Observed:
        return os.readlink(self._at(path))

    def link(self, source: bytes, target: bytes, follow: bool) -> Observed:
        os.link(self._at(source), self._at(target), follow_symlinks=follow)

    def rename(self, source: bytes, target: bytes, flags: int) -> Observed:
        _called(
            _libc.renameat2(_AT_FDCWD, self._at(source), _AT_FDCWD, self._at(target), ctypes.c_uint(flags))
        )

    def mknod(self, path: bytes, mode: int, device: int) -> Observed:
        os.mknod(self._at(path), mode, device)

    def listing(self, path: bytes) -> Observed:
        with os.scandir(self._at(path)) as entries:
            return sorted(
                (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries
            )

    # ---- attributes

    def stat(self, path: bytes, follow: bool) -> Observed:
        return observed_stat(os.stat(self._at(path), follow_symlinks=follow))

    def access(self, path: bytes, mode: int) -> Observed:
        return os.access(self._at(path), mode, effective_ids=False)

    def chmod(self, path: bytes, mode: int) -> Observed:
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> Observed:
        os.chown(self._at(path), uid, gid, follow_symlinks=follow)

    def truncate(self, path: bytes, size: int) -> Observed:
        os.truncate(self._at(path), size)

    def utimens(self, path: bytes, atime: tuple[int, int], mtime: tuple[int, int]) -> Observed:
        """What is left unset or set to the clock is not compared."""
        times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
        _called(_libc.utimensat(_AT_FDCWD, self._at(path), times, 0))
        found = os.stat(self._at(path))
        return (
            None if atime[1] == UTIME_NOW else found.st_atime_ns if atime[1] != UTIME_OMIT else None,
            None if mtime[1] == UTIME_NOW else _settled(found.st_mtime_ns),
        )

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> Observed:
        os.setxattr(self._at(path), name, value, flags)

    def getxattr(self, path: bytes, name: bytes) -> Observed:
        return os.getxattr(self._at(path), name)

    def listxattr(self, path: bytes) -> Observed:
        return sorted(os.listxattr(self._at(path)))

    def removexattr(self, path: bytes, name: bytes) -> Observed:
        os.removexattr(self._at(path), name)

    # ---- open files

    def write(self, index: int, data: bytes) -> Observed:
        return os.write(self.open_files[index], data), os.lseek(self.open_files[index], 0, os.SEEK_CUR)

    def pwrite(self, index: int, data: bytes, offset: int) -> Observed:
        return os.pwrite(self.open_files[index], data, offset)

    def read(self, index: int, size: int) -> Observed:
        return os.read(self.open_files[index], size)

    def pread(self, index: int, size: int, offset: int) -> Observed:
        return os.pread(self.open_files[index], size, offset)

    def seek(self, index: int, offset: int, whence: int) -> Observed:
        if not stat.S_ISREG(os.fstat(self.open_files[index]).st_mode):
            return "positions in a directory are the file system's affair"
        return os.lseek(self.open_files[index], offset, whence)

    def ftruncate(self, index: int, size: int) -> Observed:
        os.ftruncate(self.open_files[index], size)

    def fsync(self, index: int) -> Observed:
        os.fsync(self.open_files[index])

    def fstat(self, index: int) -> Observed:
        return observed_stat(os.fstat(self.open_files[index]))

    def fchmod(self, index: int, mode: int) -> Observed:
        os.fchmod(self.open_files[index], mode)

    def close(self, index: int) -> Observed:
        os.close(self.open_files.pop(index))

    # ---- everything

    def tree(self) -> Observed:
        """Every name below, with what stands behind it; read as whoever calls."""
        found: dict[bytes, Observed] = {}
        inodes: dict[int, int] = {}
        for directory, _, _ in os.walk(self.base):
            for entry in sorted(os.listdir(directory)):
                path = os.path.join(directory, entry)
                info = os.lstat(path)
                content: bytes | None = None
                if stat.S_ISREG(info.st_mode):
                    with open(path, "rb") as file:
                        content = file.read()
                elif stat.S_ISLNK(info.st_mode):
                    content = os.readlink(path)
                # which names are links of one file, whatever its inode number
                same = inodes.setdefault(info.st_ino, len(inodes))
                attributes = {
                    name: os.getxattr(path, name, follow_symlinks=False)
                    for name in sorted(os.listxattr(path, follow_symlinks=False))
                }
                found[path[len(self.base) + 1 :]] = (observed_stat(info), content, same, attributes)
        return found


def observed_stat(info: os.stat_result) -> Observed:
    """What must be equal of a stat result."""
    directory = stat.S_ISDIR(info.st_mode)
    return {
        "mode": oct(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "nlink": info.st_nlink,
        "size": None if directory else info.st_size,  # a directory's is the file system's affair
        "rdev": info.st_rdev,
        "mtime_ns": _settled(info.st_mtime_ns),
        "blocks": None if directory else info.st_blocks > 0,
    }


def _settled(mtime_ns: int) -> int | str:
    """A time that was set by hand, which must be equal; one of the clock differs between two calls."""
    return mtime_ns if mtime_ns < 1_500_000_000_000_000_000 else "clock"
