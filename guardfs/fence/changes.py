"""What was done to a transcript since an owner last looked: bounded, whoever writes however much. Pure."""

from __future__ import annotations

import msgspec

from guardfs.fence.events import Actor, Event, Kind, ProcessKey
from guardfs.fence.fingerprint import Fingerprint, difference
from guardfs.transcript.meta import RecordMeta

KEPT_FIRST = 8
"""Changes kept from the first on. Of the later ones only the last is kept, the rest is counted."""

KEPT_RECORDS = 4
"""Records kept of one change."""

NOBODYS: frozenset[ProcessKey] = frozenset()

APPENDING = frozenset({Kind.APPEND, Kind.ATTRIBUTES, Kind.UNSEEN})
"""Kinds after which the bytes that were there still are (of an unseen change nobody knows: see `Content.known`)."""


class Change(msgspec.Struct, frozen=True):
    """One change. actor: None if nobody was seen (`UNSEEN`). own: by the fence owner's process. continues: its
    first record goes on from the last one that the owner wrote. locked: made while the writer's own process held
    the lock file. mono, wall: ns. seq: the audit event's number, 0 if none. staged: the owner's view did not show
    it."""

    kind: Kind
    actor: Actor | None
    before: Fingerprint | None
    after: Fingerprint | None
    records: tuple[RecordMeta, ...]
    mono: int
    wall: int
    own: bool = False
    continues: bool = False
    locked: bool = False
    to: bytes | None = None
    seq: int = 0
    staged: bool = False

    @property
    def times_only(self) -> bool:
        """Whether it left everything but mtime and ctime as it was."""
        return (
            self.before is not None
            and self.after is not None
            and difference(self.before, self.after) == "times"
            and self.kind in (Kind.ATTRIBUTES, Kind.UNSEEN)
        )


def change_of(event: Event, *, own: bool, continues: bool, locked: bool) -> Change:
    """The change that *event* is."""
    return Change(
        event.kind,
        None if event.kind is Kind.UNSEEN else event.actor,
        event.before,
        event.after,
        event.records[:KEPT_RECORDS],
        event.mono,
        event.wall,
        own,
        continues,
        locked,
        event.to,
        event.seq,
        event.staged,
    )


class Content(msgspec.Struct, frozen=True):
    """What all changes since a baseline amount to, as far as a version's rule asks. Small enough for every incident.

    known: every change came with what it wrote. appends: none did more than append or change attributes. assistant:
    all records are of the role ``assistant``. mirror: all are the gateway's own deliveries (`is_mirror`). side: all
    are those, or ``custom``, ``label``, ``session_info`` or ``leaf`` records. torn: the last record is not whole.
    records: their number. own: all changes are of the owner's own process.
    """

    known: bool = True
    appends: bool = True
    assistant: bool = True
    mirror: bool = True
    side: bool = True
    torn: bool = False
    records: int = 0
    own: bool = True


class Changes:
    """The changes since some moment, oldest first. count: of all. first: the earliest; last: the latest, if it is
    not among them. staged: those that the owner's view does not show, None if there are none."""

    __slots__ = (
        "_appends",
        "_assistant",
        "_known",
        "_mirror",
        "_own",
        "_records",
        "_side",
        "_torn",
        "count",
        "first",
        "last",
        "staged",
    )

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Change] = []
        self.last: Change | None = None
        self.staged: Changes | None = None
        self._known = self._appends = self._assistant = self._mirror = self._side = self._own = True
        self._torn = NOBODYS
        self._records = 0

    def add(
        self, change: Change, records: tuple[RecordMeta, ...], torn: frozenset[ProcessKey] = NOBODYS
    ) -> None:
        """Takes in one change; *records* are all it wrote. torn: who has written the beginning of a record and not
        its end, so far; perhaps before these changes began."""
        process = (0, 0) if change.actor is None else change.actor.process
        if change.kind is Kind.APPEND and process not in self._torn and (self._torn or process in torn):
            # Something in the middle of another's record, or the end of one whose beginning is older: no valid line.
            self._assistant = self._mirror = self._side = False
        if change.staged:
            if self.staged is None:
                self.staged = Changes()
            self.staged.add(msgspec.structs.replace(change, staged=False), records, torn)
        self.count += 1
        if len(self.first) < KEPT_FIRST:
            self.first.append(change)
        else:
            self.last = change
        kind = change.kind
        self._own = self._own and change.own
        self._appends = self._appends and kind in APPENDING
        if not records and (kind is Kind.APPEND or (kind is Kind.UNSEEN and not change.times_only)):
            self._known = False
        for record in records:
            self._torn = with_torn(self._torn, process, record.part)
            if not record.part:
                self._records += 1
                mirror = is_mirror(record)
                self._assistant = self._assistant and record.role == "assistant"
                self._mirror = self._mirror and mirror
                self._side = self._side and (mirror or record.type in SIDE_TYPES)

    def content(self) -> Content:
        """What they amount to."""
        return Content(
            self._known,
            self._appends,
            self._assistant,
            self._mirror,
            self._side,
            bool(self._torn),
            self._records,
            self._own,
        )

    def all(self) -> tuple[Change, ...]:
        """The kept ones, in order."""
        return tuple(self.first) if self.last is None else (*self.first, self.last)

    def copy(self) -> Changes:
        """A copy that later changes leave as it is."""
        new = Changes()
        for name in self.__slots__:
            setattr(new, name, getattr(self, name))
        new.first = list(self.first)
        if self.staged is not None:
            new.staged = self.staged.copy()
        return new


def with_torn(torn: frozenset[ProcessKey], process: ProcessKey, part: bool) -> frozenset[ProcessKey]:
    """*torn* after *process* has written a part of a record, or (the rest of) a whole one. Bounded."""
    if part:
        return torn if len(torn) >= KEPT_FIRST else torn | {process}
    return torn - {process} if torn else torn


MIRROR_MODELS = frozenset({"delivery-mirror", "gateway-injected"})
SIDE_TYPES = frozenset({"custom", "label", "session_info", "leaf"})


def is_mirror(record: RecordMeta) -> bool:
    """Whether OpenClaw itself wrote the record beside a run: a delivered or injected message."""
    return record.role == "assistant" and record.provider == "openclaw" and record.model in MIRROR_MODELS
