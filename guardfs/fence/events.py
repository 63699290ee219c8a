"""What the mount tells the fence machine: one struct for every kind of event. Pure data.

The machine is fed every event on a transcript's name or on its lock file's name, in the order in which the mount
answered them. Times are given: monotonic for durations, wall clock for people.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import msgspec

from guardfs.fence.fingerprint import Fingerprint
from guardfs.transcript.meta import RecordMeta


class Kind(IntEnum):
    """What happened.

    Of the lock file: ``LOCK_CREATED`` (a new file under its name; also by a rename onto it), ``LOCK_REMOVED``
    (unlinked, or renamed away; whether the remover holds it is the machine's to say), ``LOCK_LOOK`` (an open,
    or a LOOKUP of its name: the kernel may know the name of one that is there), ``LOCK_KEPT`` (its holder has written
    into it that it keeps it: `lockfile.is_kept`).

    Of the transcript, without changing it: ``LOOK`` (a LOOKUP or a stat by name; `after` is what was seen),
    ``OPEN_READ``, ``OPEN_WRITE`` (with O_APPEND or without, without O_TRUNC).

    Changes; `before` and `after` say what of: ``CREATE`` (also: an open with O_TRUNC of an absent file), ``APPEND``,
    ``REWRITE`` (a write below the end), ``TRUNCATE`` (ftruncate, truncate, an open with O_TRUNC), ``ATTRIBUTES``
    (chmod, chown, utimes, xattr, link), ``RENAME_AWAY`` and ``UNLINK`` (`after` is ABSENT), ``RENAME_OVER`` (another
    file took the name), ``UNSEEN`` (a change below the mount: no writer).

    ``EXIT`` (a process is gone; only tgid and start of its writer count), ``TICK`` (nothing but time).
    """

    LOCK_CREATED = 0
    LOCK_REMOVED = 1
    LOOK = 2
    OPEN_READ = 3
    OPEN_WRITE = 4
    CREATE = 5
    APPEND = 6
    REWRITE = 7
    TRUNCATE = 8
    ATTRIBUTES = 9
    RENAME_AWAY = 10
    RENAME_OVER = 11
    UNLINK = 12
    UNSEEN = 13
    EXIT = 14
    TICK = 15
    LOCK_LOOK = 16
    LOCK_KEPT = 17

    @property
    def word(self) -> str:
        """As it is written in events and incidents: ``rename away``."""
        return self.name.lower().replace("_", " ")


CHANGES = frozenset(
    {
        Kind.CREATE, Kind.APPEND, Kind.REWRITE, Kind.TRUNCATE, Kind.ATTRIBUTES, Kind.RENAME_AWAY, Kind.RENAME_OVER,
        Kind.UNLINK, Kind.UNSEEN,
    }
)  # fmt: skip
"""Kinds that change a transcript."""

TAKES_NAME = frozenset({Kind.RENAME_AWAY, Kind.RENAME_OVER, Kind.UNLINK})
"""Kinds after which a transcript's name stands for another file, or for none."""

OPENS = frozenset({Kind.OPEN_READ, Kind.OPEN_WRITE, Kind.CREATE})
"""Kinds before which the same thread looks the name up."""

ProcessKey = tuple[int, int]
"""Thread group id, and start time in clock ticks after boot: what names a process."""


class Actor(NamedTuple):
    """The writer of one operation, as far as fences ask.

    tgid, start: the process (start: clock ticks after boot, 0 if unknown). tid: the thread. main: whether it is the
    thread group leader. lane: the label that the policy gave.
    """

    tgid: int
    start: int
    tid: int
    main: bool
    lane: str

    @property
    def process(self) -> ProcessKey:
        """What tells this process from every other."""
        return (self.tgid, self.start)


NOBODY = Actor(0, 0, 0, False, "")
"""Of events without a writer: UNSEEN and TICK."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event.

    transcript: its path below the mount, raw bytes, also for an event on its lock file; b"" for EXIT and TICK.
    mono, wall: ns. before, after: of a change, the transcript before and after it; of a LOOK, `after` is what was
    seen. records: what an APPEND or REWRITE wrote. to: the other name of a rename or link. seq: number of the audit
    event, 0 if none. staged: of a change, that it shows in its lane's own view only. side: by another lane of the
    process than the owner of that process's fence. aside: seen in another view than the committed one, so that it tells
    nothing of the file's state. truncates: a CREATE with O_TRUNC.
    """

    kind: Kind
    transcript: bytes
    actor: Actor
    mono: int
    wall: int
    before: Fingerprint | None = None
    after: Fingerprint | None = None
    records: tuple[RecordMeta, ...] = ()
    to: bytes | None = None
    seq: int = 0
    staged: bool = False
    side: bool = False
    aside: bool = False
    truncates: bool = False


def tick(mono: int, wall: int) -> Event:
    """Time went on: silent owners lose their fences."""
    return Event(Kind.TICK, b"", NOBODY, mono, wall)


def process_exit(process: ProcessKey, mono: int, wall: int) -> Event:
    """A process is gone: its fences close."""
    return Event(Kind.EXIT, b"", Actor(process[0], process[1], process[0], True, ""), mono, wall)
