"""From the events of a log to what the swimlane pictures show of each transcript. Pure.

Bounded, whatever the log holds: what is beyond the bounds is counted.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from guardfs.report.marks import Bound, Known, Mark, Record
from guardfs.report.values import items, mapping, micros, number, text, transcript_of

UNSEEN = "unseen"
"""The lane of changes that did not come through the mount."""

OTHERS = "other lanes"

MAX_PICTURES = 240
"""Transcripts remembered while the log is read; those without an incident, and of the oldest last event, are given up
first."""

MAX_LANES = 40
"""Of one picture; those that come later share a lane."""

MAX_FENCES = 20_000
MAX_BLAMES = 5_000
MAX_NOTES = 5_000
"""Of all pictures together."""


class Fence(msgspec.Struct):
    """One fence. opened, closed: us since the epoch; closed: None while open. late: seen only by a later cycle."""

    owner: str
    token: int
    opened: int
    closed: int | None = None
    reason: str = ""
    tgid: int = 0
    late: bool = False
    stamp: int = 0


class Blame(NamedTuple):
    """An incident as a picture needs it. time: of the check. culprit: time, lane and kind of the change to blame; None
    if nobody knows. label: who did what."""

    number: int
    time: int
    owner: str
    lost: bool
    label: str
    culprit: tuple[int, str, str] | None
    stamp: int = 0


class Note(NamedTuple):
    """Something else that the guard noticed."""

    time: int
    said: str
    stamp: int = 0


class Picture:
    """All of one transcript. log: number of the log that it stands in."""

    def __init__(self, log: int, path: str) -> None:
        self.log = log
        self.path = path
        self.session = ""
        self.lanes: dict[str, int] = {}
        self.owners: set[str] = set()
        self.marks: list[Mark] = []
        self.fences: dict[
            tuple[int, int], Fence
        ] = {}  # by token and opening: tokens of a lost state begin anew
        self.blames: list[Blame] = []
        self.notes: list[Note] = []
        self.last = 0
        self.events = 0
        self.lost = self.saved = 0

    def lane(self, name: str) -> int:
        """The index of a lane."""
        if name not in self.lanes and len(self.lanes) >= MAX_LANES:
            name = OTHERS
        return self.lanes.setdefault(name, len(self.lanes))

    def owner(self, name: str) -> None:
        """Notes a lane that has had a fence."""
        self.lane(name)
        if name in self.lanes:
            self.owners.add(name)

    def named(self, session: str) -> None:
        """Takes a session's name: the registry's key rather than the transcript's id."""
        if session and (":" in session or ":" not in self.session):
            self.session = session


class Pictures:
    """Builds the pictures of one or several logs. limit: marks in all. most: pictures. given_up: pictures. beyond:
    fences, incidents and notes that are not drawn. stamp: a number that whoever feeds counts up, given to all that is
    added or changed: so what is new since then can be told."""

    def __init__(self, limit: int | None = None, most: int | None = None) -> None:
        self.pictures: dict[tuple[int, str], Picture] = {}
        self.most = MAX_PICTURES if most is None else most
        self.stamp = 0
        self.bound = Bound(limit) if limit is not None else Bound()
        self.known = Known()
        self.given_up = 0
        self.beyond = 0
        self._fences = self._blames = self._notes = 0

    def picture(self, log: int, event: Mapping[str, Any], time: int) -> Picture | None:
        """The picture that *event* belongs to; None if it is about no transcript."""
        path, session = event.get("path"), event.get("session")
        if not isinstance(path, str) or not (isinstance(session, str) or event.get("kind") == "transcript"):
            return None
        key = (log, transcript_of(event))
        found = self.pictures.get(key)
        if found is None:
            if len(self.pictures) >= self.most:
                self._give_up()
            found = self.pictures[key] = Picture(*key)
        found.named(text(session))
        found.last = max(found.last, time)
        found.events += 1
        return found

    def operation(self, picture: Picture, event: Mapping[str, Any], time: int) -> None:
        """Adds what somebody did."""
        facts = self.known.of(event)
        record = None if facts.quiet else _record(event)
        size, count = number(event.get("bytes"), -1), max(1, number(event.get("count"), 1))
        lane = picture.lane(text(event.get("lane")) or "?")
        self._add(picture, Mark(time, lane, facts, size, record, count))

    def unseen(self, picture: Picture, event: Mapping[str, Any], time: int) -> None:
        """Adds a change that did not come through the mount."""
        change = f"unseen: {text(event.get('change')) or 'changed'}"
        facts = self.known.one(change, text(event.get("path")))
        self._add(picture, Mark(time, picture.lane(UNSEEN), facts))

    def rebased(self, picture: Picture, event: Mapping[str, Any], time: int) -> None:
        """Adds that what was staged on a branch is in the transcript now."""
        facts = self.known.one(f"rebased: {text(event.get('result')) or 'done'}", text(event.get("path")))
        lane = picture.lane(text(event.get("lane")) or "?")
        self._add(picture, Mark(time, lane, facts, number(event.get("bytes"), -1)))

    def fence(self, picture: Picture, event: Mapping[str, Any], time: int) -> None:
        """Adds an opening or a closing."""
        owner, token = text(event.get("owner")) or "?", number(event.get("token"))
        picture.owner(owner)
        opened = micros(event.get("opened"))
        key = (token, time if opened is None else opened)
        fence = picture.fences.get(key)
        if fence is None:
            tgid, late = number(mapping(event.get("process")).get("tgid")), event.get("adopted") is True
            fence = picture.fences[key] = Fence(owner, *key, tgid=tgid, late=late)
            self._fences += 1
            if self._fences > MAX_FENCES:
                self._thin_fences()
        fence.stamp = self.stamp
        if event.get("change") == "closed":
            fence.closed, fence.reason = time, text(event.get("reason"))

    def incident(self, picture: Picture, blame: Blame) -> None:
        """Adds a death, or one that was prevented."""
        picture.lost += blame.lost
        picture.saved += not blame.lost
        picture.owner(blame.owner)
        if blame.culprit is not None:
            picture.lane(blame.culprit[1])
        picture.blames.append(blame._replace(stamp=self.stamp))
        self._blames += 1
        if self._blames > MAX_BLAMES:
            self._blames = self._keep_later([each.blames for each in self.pictures.values()], 1)

    def note(self, picture: Picture, time: int, said: str) -> None:
        """Adds something else that the guard noticed."""
        picture.notes.append(Note(time, said, self.stamp))
        self._notes += 1
        if self._notes > MAX_NOTES:
            self._notes = self._keep_later([each.notes for each in self.pictures.values()], 0)

    # ---- bounds

    def _add(self, picture: Picture, mark: Mark) -> None:
        mark.stamp = self.stamp
        picture.marks.append(mark)
        self.bound.total += 1
        if self.bound.total > self.bound.limit:
            self.bound.thin(each.marks for each in self.pictures.values())

    def _thin_fences(self) -> None:
        """Drops the older half of those that ended well."""
        well = [
            (fence.opened, key, which)
            for key, picture in self.pictures.items()
            for which, fence in picture.fences.items()
            if fence.closed is not None and fence.reason != "died"
        ]
        for _, key, which in sorted(well)[: len(well) // 2 + 1]:
            del self.pictures[key].fences[which]
            self._fences -= 1
            self.beyond += 1

    def trim(self, before: int, marks: int) -> None:
        """Drops what ended before that time (us since the epoch), and of each picture all but the last so many
        changes, and as many looks. An open fence stays."""
        for picture in self.pictures.values():
            whole = len(picture.marks)
            del picture.marks[: bisect.bisect_left(picture.marks, before, key=lambda mark: mark.until)]
            if len(picture.marks) > marks:
                picture.marks = _last(picture.marks, marks)
            self.bound.total -= whole - len(picture.marks)
            over = [key for key, fence in picture.fences.items() if (fence.closed or before) < before]
            for key in over:
                del picture.fences[key]
            blames, notes = len(picture.blames), len(picture.notes)
            picture.blames[:] = [each for each in picture.blames if each.time >= before]
            picture.notes[:] = [each for each in picture.notes if each.time >= before]
            self._fences -= len(over)
            self._blames -= blames - len(picture.blames)
            self._notes -= notes - len(picture.notes)

    def _keep_later(self, lists: list[list[Any]], time: int) -> int:
        """Drops the older half of what all *lists* hold; *time*: the index of an entry's time. How many are left."""
        times = sorted(each[time] for entries in lists for each in entries)
        since = times[len(times) // 2]
        for entries in lists:
            entries[:] = [each for each in entries if each[time] > since]
        left = sum(map(len, lists))
        self.beyond += len(times) - left
        return left

    def _give_up(self) -> None:
        ranked = sorted(
            self.pictures.items(), key=lambda each: (each[1].lost + each[1].saved > 0, each[1].last)
        )
        for key, picture in ranked[: max(1, len(ranked) // 10)]:
            self.bound.total -= len(picture.marks)
            self._fences -= len(picture.fences)
            self._blames -= len(picture.blames)
            self._notes -= len(picture.notes)
            del self.pictures[key]
            self.given_up += 1


def _last(marks: list[Mark], most: int) -> list[Mark]:
    """The last so many changes, and as many looks."""
    kept, left = [], {True: most, False: most}
    for mark in reversed(marks):
        left[mark.facts.quiet] -= 1
        if left[mark.facts.quiet] >= 0:
            kept.append(mark)
    kept.reverse()
    return kept


def _record(event: Mapping[str, Any]) -> Record | None:
    """The record that an operation wrote; the first, if it wrote several."""
    records = items(event.get("records"))
    record = mapping(event.get("record")) or (records[0] if records else {})
    if not record:
        return None
    more = max(0, len(records) - 1) + max(0, number(event.get("records_more")))
    notes = [word for word in ("part", "invalid", "oversize") if record.get(word) is True]
    if more:
        notes.append(f"and {more} more")
    kind, role, own, parent = (text(record.get(key)) for key in ("type", "role", "id", "parent"))
    return (kind, role, own, parent, ", ".join(notes))
