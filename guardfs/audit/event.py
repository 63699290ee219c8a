"""What the rest of the guard tells the audit log. Pure data; encoding is `encode.py`'s.

An `Operation` is made on the request path, so it holds references and numbers only: nothing is formatted or copied
there. The log's own thread turns it into one line of JSON.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from guardfs.lanes.writer import Writer
from guardfs.policy.facts import Decision
from guardfs.policy.model import FenceRelation, LockRelation, OperationClass, Verdict
from guardfs.transcript.records import RecordMeta


class Kind(IntEnum):
    """What a path is to the guard; decides caching and which operations are logged."""

    OTHER = 0
    TRANSCRIPT = 1
    LOCK = 2


class FenceMark(msgspec.Struct, frozen=True):
    """The fence that was open on an operation's transcript. owner: the owner's lane; relation: the writer's to it."""

    token: int
    owner: str
    relation: FenceRelation


class Operation(msgspec.Struct, gc=False):
    """One file system operation that was answered.

    op: ``create write truncate attributes rename link symlink unlink mkdir rmdir mknod xattr`` change
    something;
    ``open look close read list sync`` do not. time_ns: wall clock at the request, ns since the epoch. us:
    microseconds from request to reply. path, to: below the mount, raw bytes, no leading slash; ``.`` is the
    mount's root. offset, size: bytes; what was written lies at [offset, offset + size). errno: 0 or the
    error that the caller got. decision: what the policy in force says of it. records: the records that a write to a
    transcript ended or began; more: how many of them were left out. operation: its class, where *op* alone does not
    tell. fence: the one that was open, None if there was none. lock: who holds the transcript's lock. claim: the lane
    that the writer claims by attribute. detail: further JSON-able facts of the operation (flags, mode, times, attribute
    name), small.
    """

    op: str
    time_ns: int
    us: int
    path: bytes
    kind: Kind
    writer: Writer
    decision: Decision
    errno: int = 0
    to: bytes | None = None
    offset: int | None = None
    size: int | None = None
    append: bool | None = None
    records: list[RecordMeta] | None = None
    more: int = 0
    operation: OperationClass | None = None
    fence: FenceMark | None = None
    lock: LockRelation = "free"
    claim: str | None = None
    applied: Verdict = "allow"
    branch: int = 0
    node: int = 0
    detail: dict[str, Any] | None = None


class Notice(msgspec.Struct, gc=False):
    """Something the guard itself has to say: ``start``, ``stop``, ``process``, ``policy``, ``unseen``,
    ``fence``, ``incident``, ``gap``, ``error``, ...

    fields: JSON-able, merged into the event. path: the transcript that it is about, raw bytes below the mount; its
    session is then told, too.
    """

    op: str
    time_ns: int
    fields: dict[str, Any]
    path: bytes | None = None
