"""Where pyfuse3's C structures keep what its Python interface hides.

Two things cannot be had otherwise: the libfuse request of an operation (for its caller), and a node id that
differs from the st_ino that is reported. Both are read by address. The layouts are those of pyfuse3's
`handlers.pxi` (`_Container`) and `__init__.pyx` (`EntryAttributes`), described here with ctypes; a daemon
refuses to start unless the described sizes are the types' own, and proves the offsets: of the entry here, of
the container with a write of its own (`selfcheck`).
"""

from __future__ import annotations

import ctypes
from typing import Any

import pyfuse3

from guardfs.errors import GuardError
from guardfs.fence.fingerprint import Fingerprint

MEND = "install the pyfuse3 version in the project's lock file"
"""What to do where libfuse or pyfuse3 is not laid out as is known."""

_FILE_INFO_SIZES = (40, 48, 56, 64)
"""sizeof(struct fuse_file_info) in libfuse 3.10-3.16 (40) and, grown by backing_id, compat_flags and
reserved, in later ones.
"""


class _Stat(ctypes.Structure):
    """struct stat has this size on x86_64; 128 elsewhere (asm-generic/stat.h)."""

    import platform

    _fields_ = (("opaque", ctypes.c_uint64 * (18 if platform.machine() == "x86_64" else 16)),)


def _object_head() -> int:
    return object.__basicsize__


class EntryParam(ctypes.Structure):
    """struct fuse_entry_param of <fuse_lowlevel.h>."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("attr", _Stat),
        ("attr_timeout", ctypes.c_double),
        ("entry_timeout", ctypes.c_double),
    )


def _container_type(file_info: int) -> type[ctypes.Structure]:
    class Container(ctypes.Structure):
        """`cdef class _Container` of handlers.pxi, after the object head."""

        _fields_ = (
            ("rdev", ctypes.c_uint64),
            ("fi", ctypes.c_ubyte * file_info),
            ("ino", ctypes.c_uint64),
            ("parent", ctypes.c_uint64),
            ("req", ctypes.c_void_p),
            ("flags", ctypes.c_int),
            ("mode", ctypes.c_uint),
            ("off", ctypes.c_int64),
            ("size", ctypes.c_size_t),
            ("stat", _Stat),
            ("fh", ctypes.c_uint64),
        )

    return Container


def _find_container() -> type[ctypes.Structure]:
    size = vars(pyfuse3)["_Container"].__basicsize__
    for file_info in _FILE_INFO_SIZES:
        described = _container_type(file_info)
        if _object_head() + ctypes.sizeof(described) == size:
            return described
    raise GuardError(
        f"pyfuse3 {pyfuse3.__version__} lays out its requests in {size} bytes, unknown to guardfs", MEND
    )


_CONTAINER: Any = _find_container()
_REQ = _object_head() + _CONTAINER.req.offset
_FLAGS = _object_head() + _CONTAINER.flags.offset

_pointer_at = ctypes.c_void_p.from_address
_int_at = ctypes.c_int.from_address
_long_at = ctypes.c_uint64.from_address


def request_of(container: object) -> int | None:
    """The `fuse_req_t` of an operation, as an address."""
    return _pointer_at(id(container) + _REQ).value


_UNIQUE = 8  # struct fuse_req of libfuse 3: the session's address, then `unique`


def session_of(container: object) -> int | None:
    """The `fuse_session` of an operation, as an address."""
    return _pointer_at(_long_at(id(container) + _REQ).value).value


def unique_of(container: object) -> int:
    """The kernel's number of an operation's request, as it sent it. `selfcheck` proves where it stands."""
    return _long_at(_long_at(id(container) + _REQ).value + _UNIQUE).value


def flags_of(container: object) -> int:
    """The container's `flags`: FUSE_SET_ATTR_* of a setattr, XATTR_* of a setxattr."""
    return _int_at(id(container) + _FLAGS).value


def clear_flags(container: object) -> None:
    """Set the container's `flags` to 0: pyfuse3 then does not imitate XATTR_CREATE by asking first."""
    _int_at(id(container) + _FLAGS).value = 0


class Entry:
    """A reply with attributes, made once and filled again for each request.

    `attributes` is what pyfuse3 wants; `fill` sets a node id, a stat result and timeouts in seconds.
    """

    __slots__ = ("_node", "attributes")

    def __init__(self) -> None:
        self.attributes = pyfuse3.EntryAttributes()
        self._node = ctypes.c_uint64.from_address(id(self.attributes) + _object_head())

    def fill(self, node: int, st: Any, entry_timeout: float, attr_timeout: float) -> pyfuse3.EntryAttributes:
        """Reply with *st* (an os.stat_result), under node id *node*."""
        attributes = self.attributes
        attributes.st_ino = st.st_ino  # sets the node id too: pyfuse3 takes them for one
        self._node.value = node
        attributes.st_mode = st.st_mode
        attributes.st_nlink = st.st_nlink
        attributes.st_uid = st.st_uid
        attributes.st_gid = st.st_gid
        attributes.st_rdev = st.st_rdev
        attributes.st_size = st.st_size
        attributes.st_blocks = st.st_blocks
        attributes.st_blksize = st.st_blksize
        attributes.st_atime_ns = st.st_atime_ns
        attributes.st_mtime_ns = st.st_mtime_ns
        attributes.st_ctime_ns = st.st_ctime_ns
        attributes.entry_timeout = entry_timeout
        attributes.attr_timeout = attr_timeout
        return attributes

    def show(self, shown: Fingerprint) -> pyfuse3.EntryAttributes:
        """Of what was filled in, report another inode, size (bytes) and times."""
        attributes, node = self.attributes, self._node.value
        attributes.st_ino = shown.ino
        self._node.value = node
        attributes.st_size = shown.size
        attributes.st_blocks = -(-shown.size // 512)
        attributes.st_mtime_ns = shown.mtime_ns
        attributes.st_ctime_ns = shown.ctime_ns
        return attributes

    def unknown(self, inode: int) -> None:
        """Report inode number *inode* without a node id: a name in a list that the kernel is to look up when
        somebody wants it.
        """
        self.attributes.st_ino = inode
        self._node.value = 0

    def nothing(self, entry_timeout: float) -> pyfuse3.EntryAttributes:
        """A negative reply: no such name, for *entry_timeout* seconds."""
        self.attributes.st_ino = 0
        self.attributes.entry_timeout = entry_timeout
        return self.attributes


def check_layout() -> None:
    """Prove where an EntryAttributes keeps its node id; raise GuardError if it is elsewhere."""
    size = pyfuse3.EntryAttributes.__basicsize__
    if size != _object_head() + ctypes.sizeof(EntryParam) + ctypes.sizeof(ctypes.c_void_p):
        raise GuardError(
            f"pyfuse3 {pyfuse3.__version__} lays out attributes in {size} bytes, unknown to guardfs", MEND
        )
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0x0123456789ABCDEF
    entry.generation = 0x1122334455667788
    entry.entry_timeout = 7.25
    param = EntryParam.from_address(id(entry) + _object_head())
    if (param.ino, param.generation, param.entry_timeout) != (0x0123456789ABCDEF, 0x1122334455667788, 7.25):
        raise GuardError(
            f"pyfuse3 {pyfuse3.__version__} keeps attributes where guardfs does not expect them", MEND
        )
