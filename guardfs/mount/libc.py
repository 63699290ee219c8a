"""System calls that Python's `os` lacks, through ctypes: renameat2, utimensat with UTIME_OMIT, mount,
umount2, prctl, capset, getxattr in one call.

Each function raises OSError with the errno of the call, like its neighbours in `os`.
"""

from __future__ import annotations

import ctypes
import os

UTIME_NOW = (1 << 30) - 1  # <linux/stat.h>
UTIME_OMIT = (1 << 30) - 2
RENAME_NOREPLACE = 1  # <linux/fs.h>
RENAME_EXCHANGE = 2
MNT_FORCE = 1  # <sys/mount.h>
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
PR_SET_NAME = 15  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_AT_FDCWD = -100
_XATTR_SIZE_MAX = 65536  # <linux/limits.h>
_CAPABILITY_VERSION_3 = 0x20080522  # <linux/capability.h>
_libc = ctypes.CDLL(None, use_errno=True)
_libc.getxattr.restype = ctypes.c_ssize_t


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def utimens(path: bytes, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """Set both times of the file that *path* names, following links; each is (seconds, nanoseconds or
    UTIME_NOW/UTIME_OMIT).
    """
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _check(_libc.utimensat(_AT_FDCWD, path, times, 0))


def rename(source_dir: int, source: bytes, target_dir: int, target: bytes, flags: int) -> None:
    """renameat2(2); glibc has had it since 2.28, the kernel since 3.15."""
    _check(_libc.renameat2(source_dir, source, target_dir, target, ctypes.c_uint(flags)))


def mount(source: str, target: bytes, fstype: str, flags: int, options: str) -> None:
    """mount(2)."""
    _check(_libc.mount(os.fsencode(source), target, fstype.encode(), ctypes.c_ulong(flags), options.encode()))


def unmount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, flags))


def getxattr(path: str, name: str) -> bytes:
    """The value of an extended attribute. `os.getxattr` calls twice for one that is longer than 128 bytes."""
    buffer = ctypes.create_string_buffer(_XATTR_SIZE_MAX)
    size = _libc.getxattr(os.fsencode(path), name.encode(), buffer, ctypes.c_size_t(_XATTR_SIZE_MAX))
    _check(min(size, 0))
    return buffer.raw[:size]


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2) with one argument."""
    _check(_libc.prctl(option, value, 0, 0, 0))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread: sets of capabilities as bit masks."""
    sets = (effective, permitted, inheritable)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = ([each & 0xFFFFFFFF for each in sets], [each >> 32 for each in sets])
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(*low, *high)))
