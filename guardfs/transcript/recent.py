"""The end of a transcript's history, as much of it as the daemon keeps. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Literal

from guardfs.transcript.formats import PI, Format, Place
from guardfs.transcript.meta import RecordMeta

Continues = Literal["owner", "branch", "leaf", "none"]
"""Whose last record is a record's parent: the fence owner's, the writer's own, the file's leaf, or none of these
(`guardfs.policy.model.Chain`)."""

KEPT = 32


class Recent:
    """Leaf, and the last ids with the lanes that wrote them: some kilobytes a transcript at most.

    known: whether the leaf is. Give *leaf* and *known* from `guardfs.transcript.tail` where the file existed before;
    a new transcript begins with ``known=True``. Not thread-safe.
    """

    __slots__ = ("_format", "_keep", "_lanes", "_last", "_onto", "known", "leaf")

    def __init__(
        self, format: Format = PI, leaf: str | None = None, known: bool = False, keep: int = KEPT
    ) -> None:
        self._format = format
        self._keep = keep
        self._lanes: OrderedDict[str, Hashable] = OrderedDict()  # id -> who wrote it, the newest last
        self._last: OrderedDict[Hashable, str] = OrderedDict()  # lane -> its last id, the newest last
        self._onto = leaf
        self.leaf = leaf
        self.known = known

    def add(self, record: RecordMeta, lane: Hashable) -> None:
        """Takes the next record of the file, written by *lane*."""
        place = self._format.place(record)
        if place is Place.NODE:
            if record.id is None:  # the file's order is the history, or the record is too long to tell its id
                self.leaf = self._onto = None
                self.known = not self._format.parents
                return
            self.leaf = self._onto = record.id
            self.known = True
            self._wrote(record.id, lane)
        elif place is Place.SIDE and record.id is not None:
            self._onto = record.id
            self._wrote(record.id, lane)
        elif place is Place.LEAF:
            self.leaf = record.target or None
            self._onto = self.leaf if record.onto is None else record.onto or None
            self.known = True
        elif place is Place.REWIND or (record.oversize and self._format.parents):
            self.leaf = self._onto = None
            self.known = False

    def replaced(self, leaf: str | None = None, known: bool = False) -> None:
        """The file is another one now (rewritten, truncated, renamed over): only *leaf* is known of it."""
        self._lanes.clear()
        self._last.clear()
        self.leaf = self._onto = leaf
        self.known = known

    def lane_of(self, record_id: str) -> Hashable:
        """Who wrote *record_id*; None if that is not known (any more)."""
        return self._lanes.get(record_id)

    def last_of(self, lane: Hashable) -> str | None:
        """The last id that *lane* wrote; None if that is not known (any more)."""
        return self._last.get(lane)

    def continues(self, record: RecordMeta, lane: Hashable, owner: Hashable = None) -> Continues | None:
        """Whose chain *record* continues, to be written by *lane* while *owner* has the fence (None: nobody).

        None: nobody knows, or the question makes no sense (no parents in this format, a record that is no step).
        To be asked before `add`.
        """
        if not self._format.parents or self._format.place(record) not in (Place.NODE, Place.SIDE):
            return None
        parent = record.parent
        if parent is not None:
            if owner is not None and self._last.get(owner) == parent:
                return "owner"
            if self._last.get(lane) == parent:
                return "branch"
        if not self.known:
            return None
        if parent == self.leaf or (self._format.cursor and parent == self._onto):
            return "leaf"
        return "none"

    def _wrote(self, record_id: str, lane: Hashable) -> None:
        self._lanes[record_id] = lane
        self._lanes.move_to_end(record_id)
        self._last[lane] = record_id
        self._last.move_to_end(lane)
        if len(self._lanes) > self._keep:
            self._lanes.popitem(last=False)
        if len(self._last) > self._keep:
            self._last.popitem(last=False)
