"""The handshake, byte by byte."""

from __future__ import annotations

import struct

import pytest

from guardfs.errors import GuardError
from guardfs.mount import protocol
from guardfs.mount.protocol import Agreement, answer_init, check_init_reply, made_up_init

WRITEBACK_CACHE = 1 << 16


def kernel_init(
    minor: int = 42, flags: int = 0, *, major: int = 7, opcode: int = 26, size: int = 64
) -> bytes:
    """INIT as a kernel sends it: header of 40 bytes, then major, minor, readahead, flags, flags2, 11 unused."""
    body = struct.pack("<IIIII", major, minor, 131072, flags & 0xFFFFFFFF, flags >> 32).ljust(64, b"\0")[
        :size
    ]
    return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, 77, 0, 0, 0, 0, 0, 0) + body


def reply_fields(reply: bytes) -> tuple[int, ...]:
    length, error, unique = struct.unpack_from("<IiQ", reply)
    assert (length, error, unique) == (len(reply), 0, 77)
    assert len(reply) == 16 + 64  # sizeof(struct fuse_init_out)
    return struct.unpack_from("<IIIIHHIIHHI", reply, 16)


def test_takes_what_it_wants_of_what_is_offered() -> None:
    everything = (1 << 64) - 1
    agreed, reply = answer_init(kernel_init(flags=everything))
    major, minor, readahead, flags, _, _, max_write, granularity, max_pages, _, flags2 = reply_fields(reply)
    assert (major, minor, readahead, granularity) == (7, 42, 131072, 1)
    assert flags | flags2 << 32 == agreed.flags == protocol.WANTED
    assert not agreed.flags & WRITEBACK_CACHE
    assert max_write == agreed.max_write == max_pages * 4096
    assert agreed.can_resend


def test_never_takes_what_is_not_offered() -> None:
    agreed, _ = answer_init(kernel_init(flags=protocol.DO_READDIRPLUS | protocol.ASYNC_READ))
    assert agreed.flags == protocol.DO_READDIRPLUS | protocol.ASYNC_READ
    assert agreed.max_write == 128 * 1024
    assert not agreed.can_resend


def test_high_flags_count_only_with_init_ext() -> None:
    agreed, _ = answer_init(kernel_init(flags=protocol.HAS_RESEND))
    assert agreed.flags == 0


def test_an_old_kernels_short_request() -> None:
    agreed, _ = answer_init(kernel_init(minor=31, flags=protocol.BIG_WRITES, size=16))
    assert (agreed.minor, agreed.flags) == (31, protocol.BIG_WRITES)


@pytest.mark.parametrize(
    "request_",
    [kernel_init(minor=30), kernel_init(major=8), kernel_init(opcode=3)],
    ids=["old", "major", "opcode"],
)
def test_refuses_what_it_cannot_speak(request_: bytes) -> None:
    with pytest.raises(GuardError):
        answer_init(request_)


def test_a_newer_kernel_is_held_to_the_known_minor() -> None:
    assert answer_init(kernel_init(minor=99))[0].minor == protocol.MINOR


AGREED = Agreement(minor=42, flags=protocol.WANTED, max_readahead=131072, max_write=1 << 20)


def test_the_made_up_init_is_one_that_libfuse_takes_without_splice() -> None:
    request = made_up_init(AGREED)
    length, opcode = struct.unpack_from("<II", request)
    major, minor, readahead, flags = struct.unpack_from("<IIII", request, 40)
    assert (length, opcode, major, minor, readahead) == (len(request), 26, 7, 13, 131072)
    assert flags & protocol.DO_READDIRPLUS and not flags & protocol.INIT_EXT


def libfuse_reply(error: int = 0, flags: int = protocol.DO_READDIRPLUS, max_write: int = 1 << 20) -> bytes:
    body = struct.pack("<IIIIHHI", 7, 31, 131072, flags, 0, 0, max_write).ljust(64, b"\0")
    return struct.pack("<IiQ", 16 + len(body), error, 1) + body


def test_checks_libfuses_answer() -> None:
    check_init_reply(libfuse_reply(), AGREED)
    for reply in (libfuse_reply(error=-71), libfuse_reply(flags=0), libfuse_reply(max_write=4096)):
        with pytest.raises(GuardError):
            check_init_reply(reply, AGREED)
