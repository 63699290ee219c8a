"""The hash chain: what makes a changed, missing or added line visible; and the head, which makes a cut tail
visible.

Every line names the SHA-256 of the line before it. The chain has no secret: whoever may write both the log
and the head can forge both. It shows accidents, and forgers without access to the state directory.
docs/audit-log.md says so to operators.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

import msgspec

GENESIS = "0" * 64
"""``prev`` of the very first line."""

VERSION = 1

HEAD_NAME = "audit.head"
"""The head's file name in a state directory."""

HEAD_SIZE = 1024
"""Bytes of the head's file: fixed, so that it is overwritten in place and needs no space on a full disk."""


class Place(NamedTuple):
    """A place in the chain: *seq* of the last line and *hash*, SHA-256 of its bytes in hex. ``(0, GENESIS)``
    before the first."""

    seq: int
    hash: str


START = Place(0, GENESIS)


def digest(line: bytes) -> str:
    """The hash of a line, which is given without its newline."""
    return hashlib.sha256(line).hexdigest()


def link(place: Place, body: bytes) -> tuple[bytes, Place]:
    """The line (without newline) that *body* becomes after *place*, and its own place."""
    seq = place[0] + 1
    line = b'{"v":1,"seq":%d,"prev":"%b",%b' % (seq, place[1].encode(), body)
    return line, Place(seq, hashlib.sha256(line).hexdigest())


class Link(msgspec.Struct):
    """What binds a line into the chain."""

    v: int
    seq: int
    prev: str
    time: str
    op: str


read_link = msgspec.json.Decoder(Link).decode
"""The `Link` of a line; raises `msgspec.MsgspecError` (or RecursionError) where there is none."""


class Head(msgspec.Struct, frozen=True):
    """The last line that the guard knows to be written, kept apart from the log. file: absolute path, or
    empty
    if too long; size: bytes."""

    v: int
    seq: int
    hash: str
    file: str
    inode: int
    size: int

    @property
    def place(self) -> Place:
        return Place(self.seq, self.hash)


def read_head(path: str) -> Head | None:
    """The head kept at *path*; None if there is none or it cannot be understood (a cut write, another
    format)."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(HEAD_SIZE * 8), type=Head)
    except (OSError, msgspec.MsgspecError):
        return None


class HeadFile:
    """Writes the head in place. *path* is created with mode 0600; its directory must exist."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, head: Head) -> None:
        """One pwrite of a fixed size; raises OSError."""
        text = msgspec.json.encode(head)
        if len(text) >= HEAD_SIZE:  # a very long path; the place in the chain is what counts
            text = msgspec.json.encode(msgspec.structs.replace(head, file=""))
        os.pwrite(self._fd, text.ljust(HEAD_SIZE - 1) + b"\n", 0)

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
