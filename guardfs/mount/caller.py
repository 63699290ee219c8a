"""Who is behind a request: thread id, user, group and umask, as the kernel sent them with it.

pyfuse3 hands a context to most operations, but not to read, write, fsync, flush and release, although the
kernel sends the caller of each. libfuse has it: `fuse_req_ctx` on the request that pyfuse3's container holds.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import pyfuse3  # noqa: F401  (loads the libfuse that is looked for below)

from guardfs.errors import GuardError
from guardfs.mount.layout import request_of


class Caller(NamedTuple):
    """struct fuse_ctx of <fuse_lowlevel.h>. pid is a *thread* id, 0 for a caller outside the guard's pid
    namespace.
    """

    uid: int
    gid: int
    pid: int
    umask: int


def loaded_libfuse() -> str:
    """The path of the libfuse that pyfuse3 is linked with: another copy would have other requests."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            if "/libfuse3.so" in line:
                return line.rstrip("\n").split(maxsplit=5)[5]
    raise GuardError("libfuse3 is not loaded", "reinstall pyfuse3 against the system's libfuse3")


_libfuse = ctypes.PyDLL(loaded_libfuse())  # it answers at once: to let other threads in would cost more
_ctx = _libfuse.fuse_req_ctx
_ctx.argtypes = (ctypes.c_void_p,)
_ctx.restype = ctypes.c_void_p
_reply_err = _libfuse.fuse_reply_err
_reply_err.argtypes = (ctypes.c_void_p, ctypes.c_int)
_reply_err.restype = ctypes.c_int
_interrupted = _libfuse.fuse_req_interrupted
_interrupted.argtypes = (ctypes.c_void_p,)
_interrupted.restype = ctypes.c_int
_version = _libfuse.fuse_pkgversion
_version.restype = ctypes.c_char_p

_words_at = (ctypes.c_uint32 * 4).from_address


def caller_of(container: object) -> Caller:
    """The caller of the request in *container*; valid until the request is answered."""
    words = _words_at(_ctx(request_of(container)))
    return Caller(words[0], words[1], words[2], words[3])


def reply_error(request: int, errno: int) -> None:
    """Answer a request with an error, past pyfuse3; only for one that has not been answered."""
    _reply_err(request, errno)


def interrupted(request: int | None) -> bool:
    """Whether the caller of *request*, which is not answered yet, has been sent a signal meanwhile."""
    return request is not None and _interrupted(request) != 0


def libfuse_version() -> str:
    """The version of the loaded libfuse."""
    return (_version() or b"?").decode()
