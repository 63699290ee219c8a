"""The calls that reach the directory below: one place, so that a test can make any of them fail.

Names are those of `os`. They are looked up on an instance; `Backing` has the real ones.
"""

from __future__ import annotations

import os

from guardfs.mount import libc


class Backing:
    """System calls on the directory below the mount."""

    chmod = staticmethod(os.chmod)
    chown = staticmethod(os.chown)
    close = staticmethod(os.close)
    fchmod = staticmethod(os.fchmod)
    fchown = staticmethod(os.fchown)
    fdatasync = staticmethod(os.fdatasync)
    fstat = staticmethod(os.fstat)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    getxattr = staticmethod(os.getxattr)
    link = staticmethod(os.link)
    listxattr = staticmethod(os.listxattr)
    mkdir = staticmethod(os.mkdir)
    mknod = staticmethod(os.mknod)
    open = staticmethod(os.open)
    pread = staticmethod(os.pread)
    preadv = staticmethod(os.preadv)
    pwrite = staticmethod(os.pwrite)
    readlink = staticmethod(os.readlink)
    removexattr = staticmethod(os.removexattr)
    rename = staticmethod(os.rename)
    rename_with_flags = staticmethod(libc.rename)
    rmdir = staticmethod(os.rmdir)
    scandir = staticmethod(os.scandir)
    setxattr = staticmethod(os.setxattr)
    stat = staticmethod(os.stat)
    statvfs = staticmethod(os.fstatvfs)
    symlink = staticmethod(os.symlink)
    truncate = staticmethod(os.truncate)
    unlink = staticmethod(os.unlink)
    utimens = staticmethod(libc.utimens)
