"""The history of a transcript: its leaf, the path that the agent continues from, forks, and what is forgotten. Pure.

`History` holds a whole transcript, for commands; `guardfs.transcript.recent` is what the daemon can afford.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from guardfs.transcript.formats import PI, Format, Place
from guardfs.transcript.meta import RecordMeta

_NONE = -1


class Standing(enum.Enum):
    """What has become of a record."""

    HEADER = "header"
    KEPT = "kept"
    """On the path from the leaf: the agent remembers it."""
    FORGOTTEN = "forgotten"
    """A step of the conversation that the leaf no longer leads to."""
    REPLACED = "replaced"
    """A later record has the same id and stands in its place."""
    SIDE = "side"
    CONTROL = "control"
    """Moves the leaf, and did so."""
    APART = "apart"
    INVALID = "invalid"


class Step(NamedTuple):
    """What a record was to the history at the moment it was added.

    number: from 0, blank lines not counted. fork: the first record that has the same parent, where there
    is one already; crossed: and one of them is from another lane. same: the last record that had the same id.
    orphan: it names a parent that has not come yet. restart: it names none, though there is a leaf. void: a record
    that moves the leaf, but not to where anything is: readers ignore it.
    """

    number: int
    place: Place
    fork: int | None = None
    crossed: bool = False
    same: int | None = None
    orphan: bool = False
    restart: bool = False
    void: bool = False


class Fork(NamedTuple):
    """Several steps with the same parent, in the order of the file. crossed: not all are from one lane."""

    parent: int
    children: tuple[int, ...]
    crossed: bool


class History:
    """A transcript's records as a tree, in the order of the file. Not thread-safe.

    `add` costs the same however many there are (a ``$rewindTo``: as many steps as it takes back). A million
    records take some 200 MB, most of it for their ids.
    """

    def __init__(self, format: Format = PI) -> None:
        self._format = format
        self._places: list[Place] = []
        self._parent = array("i")  # index of the parent at the time; `_now` leads to what has replaced it
        self._first_child = array("i")
        self._lane = array("i")
        self._lanes: dict[Hashable, int] = {}
        self._latest: dict[str, int] = {}  # id -> index
        self._newer: dict[int, int] = {}  # index -> index of what has replaced it
        self._waiting: dict[str, list[int]] = {}  # parent that has not come -> children
        self._children: dict[int, list[int]] = {}  # of forks only
        self._crossed: set[int] = set()  # parents of forks between lanes
        self._names: list[str | None] = []  # index -> id, where ids can be taken back
        self._keep_names = format.replaces and not format.parents
        self._restarts: set[int] = set()
        self._duplicates: dict[int, int] = {}  # index -> the one before with the same id
        self._bad: set[int] = set()  # invalid, or a control that moves nothing
        self._leaf = _NONE
        self._leaf_id: str | None = None
        self._onto: str | None = None  # what the next record will name as its parent
        self._kept: bytearray | None = None

    def __len__(self) -> int:
        return len(self._places)

    @property
    def leaf(self) -> str | None:
        """The leaf's id; None where there is no leaf, or it has no id."""
        return self._leaf_id

    @property
    def onto(self) -> str | None:
        """What a record names as its parent that continues the leaf, where the format has such a cursor."""
        return self._onto

    @property
    def leaf_index(self) -> int | None:
        """The leaf's number."""
        return None if self._leaf == _NONE else self._now(self._leaf)

    def add(self, record: RecordMeta, lane: Hashable = None) -> Step:
        """Takes the next record of the file, written by *lane* (None: nobody knows)."""
        place = self._format.place(record)
        index = len(self._places)
        self._places.append(place)
        self._parent.append(_NONE)
        self._first_child.append(_NONE)
        self._lane.append(self._lanes.setdefault(lane, len(self._lanes)))
        self._kept = None
        if self._keep_names:
            self._names.append(record.id)
        if place is Place.NODE or place is Place.SIDE:
            return self._step(index, place, record)
        if place is Place.LEAF:
            return self._move(index, record)
        if place is Place.REWIND:
            self._rewind(record.target)
        elif record.invalid or record.part:
            self._bad.add(index)
        return Step(index, place)

    def path(self) -> Iterator[int]:
        """The steps that the agent remembers, from the leaf back to the start."""
        seen = bytearray(len(self._places))
        index = self._leaf
        while index != _NONE:
            index = self._now(index)
            if seen[index]:  # ids that come twice can make a circle
                return
            seen[index] = 1
            if self._places[index] is not Place.LEAF:  # who names one as parent continues its target
                yield index
            index = self._parent[index]

    def standing(self, index: int) -> Standing:
        """What has become of record *index*, as of the last record added."""
        place = self._places[index]
        if place is Place.NODE or place is Place.SIDE:
            kept = self._kept
            if kept is None:
                kept = self._kept = bytearray(len(self._places))
                for each in self.path():
                    kept[each] = 1
            if kept[index]:  # a side record, too, where a leaf record points at it
                return Standing.KEPT
            if index in self._newer:
                return Standing.REPLACED
            return Standing.FORGOTTEN if place is Place.NODE else Standing.SIDE
        if index in self._bad:
            return Standing.INVALID
        return _STANDINGS[place]

    def forgotten(self) -> list[int]:
        """The steps that the leaf no longer leads to, in the order of the file."""
        return [each for each in range(len(self)) if self.standing(each) is Standing.FORGOTTEN]

    def forks(self) -> list[Fork]:
        """All forks, in the order of their parents."""
        found = []
        for parent in sorted(self._children):
            now = {self._now(child) for child in self._children[parent]}
            children = tuple(
                child
                for child in sorted(now)
                if self._parent_of(child) == parent and self._places[child] is Place.NODE
            )
            if len(children) > 1:
                found.append(Fork(parent, children, len({self._lane[child] for child in children}) > 1))
        return found

    def orphans(self) -> list[int]:
        """The records whose parent is nowhere in the file, in its order."""
        return sorted(child for children in self._waiting.values() for child in children)

    def restarts(self) -> list[int]:
        """The steps without a parent that are not the first one: what stood before them is forgotten."""
        return sorted(self._restarts)

    def duplicates(self) -> dict[int, int]:
        """Each record whose id had come before, and the record that had it last."""
        return dict(self._duplicates)

    def parent(self, index: int) -> int | None:
        """The step before *index*; None where it has none, or that is not in the file."""
        parent = self._parent[index]
        return None if parent == _NONE else self._now(parent)

    # ---- parts

    def _now(self, index: int) -> int:
        """What stands in the place of *index*; later walks are made short."""
        newer = self._newer
        if index not in newer:
            return index
        last = newer[index]
        while last in newer:
            last = newer[last]
        while newer[index] != last:
            newer[index], index = last, newer[index]
        return last

    def _step(self, index: int, place: Place, record: RecordMeta) -> Step:
        side = place is Place.SIDE
        same = None if record.id is None else self._latest.get(record.id)
        if not self._format.parents:
            return self._next(index, record.id, same)
        parent_id = record.parent
        if self._format.cursor and not side and parent_id == self._onto:
            parent_id = self._leaf_id
        if parent_id == record.id:
            parent_id = None
        restart = parent_id is None and not side and self._leaf != _NONE
        orphan = False
        if parent_id is not None:
            parent = self._latest.get(parent_id)
            if parent is None:
                orphan = True
                self._waiting.setdefault(parent_id, []).append(index)
            else:
                self._parent[index] = self._now(parent)
        fork, crossed = self._branch(index, same) if not side else (None, False)
        if restart:
            self._restarts.add(index)
        self._named(index, record.id, same)
        if not side:
            self._leaf, self._leaf_id = index, record.id
        self._onto = record.id
        return Step(index, place, fork, crossed, same, orphan, restart)

    def _next(self, index: int, record_id: str | None, same: int | None) -> Step:
        """A step of a format in which the file's order is the history."""
        if same is not None and self._format.replaces:
            self._parent[index] = self._parent[same]
        else:
            self._parent[index] = self._leaf
            self._leaf, self._leaf_id = index, record_id
        self._named(index, record_id, same)
        return Step(index, Place.NODE, same=same)

    def _named(self, index: int, record_id: str | None, same: int | None) -> None:
        """Lets later records find *index* by its id."""
        if record_id is None:
            return
        self._latest[record_id] = index
        if same is not None:
            self._duplicates[index] = same
            if self._format.replaces:
                self._newer[same] = index
                if self._first_child[index] == _NONE:
                    self._first_child[index] = self._first_child[same]
                if same in self._children:
                    self._children[index] = self._children.pop(same)
                if same in self._crossed:
                    self._crossed.add(index)
        for child in self._waiting.pop(record_id, ()):
            self._parent[child] = index
            if self._places[child] is Place.NODE:
                self._branch(child, None)

    def _branch(self, child: int, same: int | None) -> tuple[int | None, bool]:
        """Notes *child* with its parent; the first other child, and whether their lanes differ."""
        parent = self._parent[child]
        if parent == _NONE:
            return None, False
        first = self._first_child[parent]
        if first == _NONE:
            self._first_child[parent] = child
            return None, False
        if first == child or (same is not None and self._parent_of(same) == parent):
            return None, False  # the same record once more
        self._children.setdefault(parent, [first]).append(child)
        if self._lane[first] != self._lane[child]:
            self._crossed.add(parent)
        return first, parent in self._crossed

    def _parent_of(self, index: int) -> int:
        parent = self._parent[index]
        return _NONE if parent == _NONE else self._now(parent)

    def _move(self, index: int, record: RecordMeta) -> Step:
        """A record that moves the leaf. Its own id leads to its target."""
        target, onto = record.target or None, record.onto
        void = (target is not None and target not in self._latest) or (
            bool(onto) and onto not in self._latest
        )
        same = None if record.id is None else self._latest.get(record.id)
        to = record.parent if void else target
        self._parent[index] = _NONE if to is None else self._latest.get(to, _NONE)
        if void:
            self._bad.add(index)
        else:
            self._leaf = _NONE if target is None else self._latest[target]
            self._leaf_id = target
            self._onto = target if onto is None else onto or None
        self._named(index, record.id, same)
        return Step(index, Place.LEAF, same=same, void=void)

    def _rewind(self, target: str | None) -> None:
        """Takes back *target* and all after it; everything, if it is not there (as Gemini CLI does)."""
        found = None if target is None else self._latest.get(target)
        if target is None or found is None:
            self._latest.clear()
            self._leaf, self._leaf_id = _NONE, None
            return
        stop = self._parent_of(found)
        index = self._leaf
        while index not in (_NONE, stop):
            index = self._now(index)
            name = self._names[index]
            if name is not None:
                self._latest.pop(name, None)
            index = self._parent_of(index)
        self._leaf = stop
        self._leaf_id = None if stop == _NONE else self._names[stop]


_STANDINGS = {
    Place.HEADER: Standing.HEADER,
    Place.LEAF: Standing.CONTROL,
    Place.REWIND: Standing.CONTROL,
    Place.APART: Standing.APART,
}
