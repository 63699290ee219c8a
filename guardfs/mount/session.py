"""Requests, read here and handed to libfuse, which hands them to pyfuse3.

libfuse would read them itself. But pyfuse3 keeps some of what a request says to itself, and of a directory that is read
it does not tell which (`readdir` is given the number of an open directory, and directories are not opened here). So the
bytes are read by us, and libfuse is given them (`fuse_session_process_buf`, which is there for that): the request at
hand then lies in our own buffer. Layouts: <linux/fuse.h>, and struct fuse_buf of <fuse_common.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os

from guardfs.errors import GuardError
from guardfs.mount.caller import loaded_libfuse
from guardfs.mount.layout import MEND

_HEADER = 4096
"""Bytes of a request besides what is written, at most; libfuse's own buffer allows for as much."""

_NODE = 2  # of the header, as 64-bit words: the node id

_AGAIN = frozenset((errno.EAGAIN, errno.EINTR, errno.ENOENT))
"""What the read says where the request was interrupted before it was read."""

_GONE = frozenset((errno.ENODEV, errno.ECONNABORTED))
"""What it says where the mount is gone; the second one if much was still to be forgotten."""

_libfuse = ctypes.PyDLL(loaded_libfuse())  # handlers are Python: the interpreter is kept
_process = _libfuse.fuse_session_process_buf
_process.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
_process.restype = None
_fd_of = _libfuse.fuse_session_fd
_fd_of.argtypes = (ctypes.c_void_p,)
_fd_of.restype = ctypes.c_int


class _Buffer(ctypes.Structure):
    """struct fuse_buf; libfuse 3.17 added the last one, which is 0 for a buffer that is not libfuse's own."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("mem", ctypes.c_void_p),
        ("fd", ctypes.c_int),
        ("pos", ctypes.c_int64),
        ("mem_size", ctypes.c_size_t),
    )


class Session:
    """address: of libfuse's `fuse_session`, which reads from *fd*. max_write: bytes. GuardError, where it does not."""

    def __init__(self, address: int, fd: int, max_write: int) -> None:
        if _fd_of(address) != fd:
            raise GuardError(
                "libfuse's session is not where guardfs expects it",
                MEND,
            )
        self._address = address
        self._fd = fd
        self._bytes = bytearray(max_write + _HEADER)
        self._into = [self._bytes]
        self._words = memoryview(self._bytes).cast("Q")
        self._buffer = _Buffer(mem=ctypes.addressof(ctypes.c_char.from_buffer(self._bytes)))
        self._at = ctypes.addressof(self._buffer)

    def node(self) -> int:
        """The node id of the request at hand: of the last one that `serve` has read."""
        return self._words[_NODE]

    def serve(self) -> bool:
        """Read one request, and have it answered, or begun; False if the mount is gone. To be called when there is
        one. Returns without, if it was interrupted before it could be read."""
        try:
            self._buffer.size = os.readv(self._fd, self._into)
        except OSError as error:
            if error.errno in _AGAIN:
                return True
            if error.errno in _GONE:
                return False
            raise
        if not self._buffer.size:
            return False
        _process(self._address, self._at)
        return True
