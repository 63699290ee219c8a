"""What the rest of the guard tells the audit log. Pure data; encoding is `encode.py`'s.

An `Operation` is made on the request path, so it holds references and numbers only: nothing is formatted,
parsed or copied there. The log's own thread turns it into one line of JSON.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from guardfs.lanes.writer import Writer


class Kind(IntEnum):
    """What a path is to the guard; decides caching and which operations are logged."""

    OTHER = 0
    TRANSCRIPT = 1
    LOCK = 2


class Operation(msgspec.Struct, gc=False):
    """One file system operation that was answered.

    op: ``create write truncate attributes rename link symlink unlink mkdir rmdir mknod xattr`` change
    something;
    ``open look close read list sync`` do not. time_ns: wall clock at the request, ns since the epoch. us:
    microseconds from request to reply. path, to: below the mount, raw bytes, no leading slash; ``.`` is the
    mount's root. offset, size: bytes; what was written lies at [offset, offset + size). errno: 0 or the
    error that the caller got. data: the bytes written to a transcript, from which type, role, id and parent
    of records are read; never logged. detail: further JSON-able facts of the operation (flags, mode, times,
    attribute name), small.
    """

    op: str
    time_ns: int
    us: int
    path: bytes
    kind: Kind
    writer: Writer
    errno: int = 0
    to: bytes | None = None
    offset: int | None = None
    size: int | None = None
    append: bool | None = None
    data: bytes | None = None
    node: int = 0
    detail: dict[str, Any] | None = None


class Notice(msgspec.Struct, gc=False):
    """Something the guard itself has to say: ``start``, ``stop``, ``process``, ``unseen``, ``gap``,
    ``error``, ...

    fields: JSON-able, merged into the event.
    """

    op: str
    time_ns: int
    fields: dict[str, Any]
