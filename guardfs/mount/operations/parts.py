"""What operations hand to each other: who calls, answers that wait, open files, what was made of an operation, and what
is noted of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from guardfs.audit.event import Kind
from guardfs.fence.fingerprint import Fingerprint
from guardfs.lanes.writer import Writer
from guardfs.mount.nodes import Node
from guardfs.policy.facts import Decision
from guardfs.policy.model import OperationClass, Verdict


class Context(Protocol):
    """What an operation must know of its caller: `Caller`, or pyfuse3's RequestContext."""

    @property
    def pid(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def umask(self) -> int: ...


class Later(msgspec.Struct):
    """An answer that takes long: *work* runs in a thread, then *then* on the loop with its result (or
    *failed* with its OSError).

    While *work* runs, other requests are answered: any table may have changed, and the request that the core
    holds is another one. Whoever returns a Later takes what it needs (node, handle, writer) along in the
    closures.

    value: what the caller is told, where the operation is done, and only has to be brought to the disk. answered:
    called when it is.
    """

    work: Callable[[], Any]
    then: Callable[[Any], Any]
    failed: Callable[[OSError], None] | None = None
    value: int | None = None
    answered: Callable[[], None] | None = None


class Held(msgspec.Struct):
    """An answer that waits for another's doing: until *over* says so, *seconds* have passed, or the caller has been
    interrupted; then *then* gives the answer, told whether it was in vain.

    While it waits, other requests are answered: everything may have changed, and *then* begins anew. unique: the
    kernel's number of the request.
    """

    over: Callable[[], bool]
    seconds: float
    request: int | None
    then: Callable[[bool], Any]
    left: Callable[[], None]
    unique: int = 0


class Mark(msgspec.Struct, frozen=True):
    """What the enforcement has made of the operation that is being answered: see `Happening` and `Operation`. decision:
    the one that its branch was made by."""

    verdict: Verdict = "allow"
    staged: bool = False
    side: bool = False
    aside: bool = False
    branch: int = 0
    decision: Decision | None = None


UNMARKED = Mark()
ASIDE = Mark(aside=True)
UNSEEN = Mark(aside=True)
"""The kernel has asked twice for one look of the agent's: nothing is told of the second time."""


class Noted(msgspec.Struct, gc=False):
    """One operation between its answer and its judgement: see `Core.note`."""

    op: str
    begin: int
    us: int
    kind: Kind
    path: bytes
    errno: int
    node: Node | None
    after: Fingerprint | None
    writer: Writer
    to: bytes | None
    data: bytes | None
    operation: OperationClass | None
    before: Fingerprint | None
    replaced: Fingerprint | None
    writes: bool
    fenced: bool
    truncates: bool
    wanted: bool
    mark: Mark
    more: dict[str, Any]
    serial: int = 0


class Watcher(Protocol):
    """The watch on the directory below (`guardfs.mount.watch`)."""

    def add(self, node: Node, path: bytes) -> None: ...
    def remove(self, node: Node) -> None: ...


class Handle:
    """An open file. append: O_APPEND, so a write lands at the end whatever its offset. sync: what brings each write to
    the disk (O_SYNC: fsync, O_DSYNC: fdatasync), or None. kept: where the next daemon finds it, 0 if nowhere."""

    __slots__ = (
        "append",
        "fd",
        "flags",
        "follows",
        "journal",
        "kept",
        "live",
        "node",
        "number",
        "own_from",
        "settled",
        "sync",
        "torn",
        "writable",
    )

    def __init__(self, number: int, fd: int, node: Node, flags: int) -> None:
        self.number = number
        self.kept = 0
        self.fd = fd
        self.node = node
        self.flags = flags
        self.live: Any = None  # the branch that it reads and writes (`guardfs.mount.views.Live`)
        self.journal = False  # fd is that of a branch's data
        self.settled = False  # whoever opened it is not the owner: what is written goes where the open went
        self.follows = -1  # after a rebase: a write at this offset goes to the end of the file
        self.own_from = 0  # after a rebase: from this offset to `follows` the file holds something else now
        self.torn = False  # the last write ended in the middle of a record
        self.append = flags & os.O_APPEND != 0
        self.sync: str | None = None
        if flags & os.O_SYNC == os.O_SYNC:
            self.sync = "fsync"
        elif flags & os.O_DSYNC:
            self.sync = "fdatasync"
        self.writable = flags & os.O_ACCMODE != os.O_RDONLY
