"""The FUSE_INIT handshake, in bytes. Pure.

The supervisor answers the kernel's INIT itself and gives every daemon one made up for the purpose, so that a
daemon can be replaced without the kernel noticing. Layouts and numbers: <linux/fuse.h>, kernel protocol 7.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from guardfs.errors import GuardError

FUSE_STATFS: Final = 17
FUSE_INIT: Final = 26
MAJOR: Final = 7
MINOR: Final = 45
OLDEST_MINOR: Final = 31  # Linux 5.4

HEADER = struct.Struct(
    "<IIQQIIIHH"
)  # fuse_in_header: len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = struct.Struct("<IiQ")  # fuse_out_header: len error unique
_INIT_IN = struct.Struct("<IIIII44x")  # fuse_init_in
_INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")  # fuse_init_out

ASYNC_READ = 1 << 0
ATOMIC_O_TRUNC = 1 << 3
BIG_WRITES = 1 << 5
DONT_MASK = 1 << 6
AUTO_INVAL_DATA = 1 << 12
DO_READDIRPLUS = 1 << 13
ASYNC_DIO = 1 << 15
PARALLEL_DIROPS = 1 << 18
POSIX_ACL = 1 << 20
MAX_PAGES = 1 << 22
NO_OPENDIR_SUPPORT = 1 << 24
HANDLE_KILLPRIV_V2 = 1 << 28
INIT_EXT = 1 << 30
HAS_RESEND = 1 << 39

NOTIFY_RESEND: Final = 7
NOTIFY_INC_EPOCH: Final = 8
EPOCH_MINOR: Final = 44

WANTED = (
    ASYNC_READ
    | ATOMIC_O_TRUNC  # O_TRUNC arrives with the open: one operation, one verdict
    | BIG_WRITES
    | DONT_MASK  # the umask is applied below, where a default ACL can overrule it
    | AUTO_INVAL_DATA
    | DO_READDIRPLUS  # pyfuse3 knows no other listing
    | ASYNC_DIO
    | PARALLEL_DIROPS
    | POSIX_ACL
    | MAX_PAGES
    | NO_OPENDIR_SUPPORT  # Linux 5.1: a directory need not be opened to be listed
    | HANDLE_KILLPRIV_V2  # without it the kernel asks for security.capability before every single write
    | INIT_EXT
    | HAS_RESEND
)
"""What the guard asks for, of what the kernel offers. Never WRITEBACK_CACHE: delayed writes have lost their
caller.
"""

MAX_WRITE: Final = 1 << 20
_PAGE: Final = 4096
_MAX_BACKGROUND: Final = 64


class Agreement(msgspec.Struct, frozen=True):
    """What kernel and guard agreed upon at mount time; every daemon of the mount is told the same.

    flags: 64 bits, FUSE_* of <linux/fuse.h>. max_readahead, max_write: bytes.
    """

    minor: int
    flags: int
    max_readahead: int
    max_write: int

    @property
    def can_resend(self) -> bool:
        """Whether the kernel sends unanswered requests again to a new daemon (Linux 6.9)."""
        return bool(self.flags & HAS_RESEND)


def answer_init(request: bytes, *, resend: bool = True) -> tuple[Agreement, bytes]:
    """The agreement on the kernel's INIT *request*, and the reply to write to /dev/fuse. resend: ask for what lets a
    later daemon take over."""
    _, opcode, unique, *_ = HEADER.unpack_from(request)
    if opcode != FUSE_INIT:
        raise GuardError(f"the kernel's first request was opcode {opcode}, not FUSE_INIT", "mount again")
    major, minor, readahead, flags, flags2 = _INIT_IN.unpack_from(
        request.ljust(HEADER.size + _INIT_IN.size, b"\0"), HEADER.size
    )
    if major != MAJOR or minor < OLDEST_MINOR:
        raise GuardError(
            f"the kernel speaks FUSE {major}.{minor}; guardfs needs 7.{OLDEST_MINOR}",
            "use Linux 5.4 or newer",
        )
    offered = flags | (flags2 << 32 if flags & INIT_EXT else 0)
    agreed = Agreement(
        minor=min(minor, MINOR),
        flags=offered & (WANTED if resend else WANTED & ~HAS_RESEND),
        max_readahead=readahead,
        max_write=MAX_WRITE if offered & MAX_PAGES else 32 * _PAGE,
    )
    body = _INIT_OUT.pack(
        MAJOR,
        agreed.minor,
        agreed.max_readahead,
        agreed.flags & 0xFFFFFFFF,
        _MAX_BACKGROUND,
        _MAX_BACKGROUND * 3 // 4,
        agreed.max_write,
        1,  # time granularity: nanoseconds
        agreed.max_write // _PAGE,
        0,
        agreed.flags >> 32,
        0,
        0,
    )
    return agreed, OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique) + body


def ask_to_resend() -> bytes:
    """What a new daemon writes to /dev/fuse so that the kernel sends once more what the last one had read and not
    answered (FUSE_NOTIFY_RESEND)."""
    return OUT_HEADER.pack(OUT_HEADER.size, NOTIFY_RESEND, 0)


def new_epoch() -> bytes:
    """The kernel is to look up every name again before it believes it, also that there is none
    (FUSE_NOTIFY_INC_EPOCH, protocol 7.44)."""
    return OUT_HEADER.pack(OUT_HEADER.size, NOTIFY_INC_EPOCH, 0)


def made_up_init(agreement: Agreement) -> bytes:
    """An INIT request for libfuse that leads it to what *agreement* says.

    It claims protocol 7.13, the last without splice: libfuse then reads requests with one read() where it
    would splice() and read(). What 7.14 and later added is negotiated by flags, save notify_store and
    notify_delete, which the guard does not use.
    """
    flags = agreement.flags & 0xFFFFFFFF & ~(INIT_EXT | POSIX_ACL | DONT_MASK)
    body = _INIT_IN.pack(MAJOR, 13, agreement.max_readahead, flags, 0)
    return HEADER.pack(HEADER.size + len(body), FUSE_INIT, 1, 0, 0, 0, 0, 0, 0) + body


GREETING: Final = 3
"""The number of the made-up STATFS."""


def made_up_statfs() -> bytes:
    """A request that shows where libfuse keeps its session."""
    return HEADER.pack(HEADER.size, FUSE_STATFS, GREETING, 1, 0, 0, 0, 0, 0)


def check_init_reply(reply: bytes, agreement: Agreement) -> None:
    """Refuse a libfuse that answered the made-up INIT in a way the kernel was not told of."""
    _, error, _ = OUT_HEADER.unpack_from(reply)
    if error:
        raise GuardError(f"libfuse refused the handshake (errno {-error})", "install a libfuse 3.10 or newer")
    fields = _INIT_OUT.unpack_from(reply.ljust(OUT_HEADER.size + _INIT_OUT.size, b"\0"), OUT_HEADER.size)
    flags, max_write = fields[3], fields[6]
    if not flags & DO_READDIRPLUS or max_write < agreement.max_write:
        raise GuardError(
            f"libfuse settled on flags {flags:#x} and {max_write} bytes a write, the kernel on {agreement.max_write}",
            "install a libfuse 3.10 or newer",
        )
