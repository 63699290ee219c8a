"""The marks of all pictures, bounded: where there are too many, neighbours of one kind become one. Pure.

Whatever the log holds, no more than `MAX_MARKS` are kept. Beyond that, those of the same lane and kind are joined that
are nearer to each other than some time, which grows until it is enough: looks first, changes only if that does not
suffice. What is too much even then (each of very many lanes has one) is dropped from the oldest on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from guardfs.audit.levels import QUIET
from guardfs.report.values import mapping, number, text

MAX_MARKS = 60_000
"""What a browser draws without a pause, in a page that can still be attached to a message: some 3 MB."""

_FIRST_GAP = 1_000
_ENOUGH = 0.6
_CHANGES_FROM = 60_000_000
"""us: changes are joined, too, once looks a minute apart are."""

_LAST_GAP = 1 << 50

Record = tuple[str, str, str, str, str]
"""type, role, id, parent, note; "" for what is not known."""

Writer = tuple[str, str, int, int, bool, str]
"""comm, exe, tgid, tid, main, known."""

NOBODY: Writer = ("", "", 0, 0, False, "")


class Facts(msgspec.Struct, frozen=True, weakref=True):
    """What repeats from mark to mark. op: as `guardfs tail` names it, "append" for a write at the end, "lock create"
    for the lock file's, "unseen: removed" for what did not come through the mount. fence: the relation and the token.
    quiet: changes nothing."""

    op: str
    path: str
    writer: Writer = NOBODY
    rule: str = ""
    verdict: str = ""
    would: str = ""
    fence: str = ""
    errno: int = 0
    to: str = ""
    quiet: bool = False

    @property
    def kind(self) -> tuple[str, str, str, bool]:
        """What marks must share to be joined."""
        return (self.op, self.verdict, self.would, bool(self.errno))


class Known:
    """Keeps one of equal facts, for as long as a mark has them: a log of gigabytes costs what is drawn of it."""

    def __init__(self) -> None:
        self._facts: WeakValueDictionary[tuple[Any, ...], Facts] = WeakValueDictionary()

    def one(self, *values: Any) -> Facts:
        """The facts of these *values*, in their order."""
        found = self._facts.get(values)
        if found is None:
            found = self._facts[values] = Facts(*values)
        return found

    def of(self, event: Mapping[str, Any]) -> Facts:
        """The facts of an operation in the log."""
        op, path = text(event.get("op")), text(event.get("path"))
        lock = path.endswith(".lock")
        fence = mapping(event.get("fence"))
        return self.one(
            f"lock {op}" if lock else "append" if event.get("class") == "append" else op,
            path,
            _writer(mapping(event.get("writer"))),
            text(event.get("rule")),
            text(event.get("verdict")),
            text(event.get("would")),
            f"{text(fence.get('relation'))} fence {number(fence.get('token'))}" if fence else "",
            number(event.get("errno")),
            text(event.get("to")),
            lock or op in QUIET,
        )


def _writer(writer: Mapping[str, Any]) -> Writer:
    return (
        text(writer.get("comm")),
        text(writer.get("exe")),
        number(writer.get("tgid")),
        number(writer.get("tid")),
        writer.get("main") is True,
        text(writer.get("known")),
    )


class Mark:
    """One event, or several of a kind. time, until: us since the epoch. lane: index in its picture. size: bytes, -1:
    none. stamp: see `Pictures`."""

    __slots__ = ("count", "facts", "lane", "record", "size", "stamp", "time", "until")

    def __init__(
        self, time: int, lane: int, facts: Facts, size: int = -1, record: Record | None = None, count: int = 1
    ) -> None:
        self.stamp = 0
        self.time = self.until = time
        self.lane = lane
        self.facts = facts
        self.size = size
        self.record = record
        self.count = count

    def join(self, other: Mark) -> None:
        """Takes in a later mark."""
        self.until = max(self.until, other.until)
        self.count += other.count
        self.record = None
        if other.size >= 0:
            self.size = max(self.size, 0) + other.size


class Bound:
    """Counts the marks of all pictures. gap: us within which looks are joined now, 0: none are. dropped: marks."""

    def __init__(self, limit: int = MAX_MARKS) -> None:
        self.limit = limit
        self.gap = 0
        self.total = 0
        self.dropped = 0

    @property
    def gap_of_changes(self) -> int:
        """us within which changes are joined."""
        return self.gap // 1000 if self.gap > _CHANGES_FROM else 0

    def thin(self, pictures: Iterable[list[Mark]]) -> None:
        """Joins marks in place until enough room is left."""
        lists, enough = list(pictures), int(self.limit * _ENOUGH)
        self._join(lists)  # those that came since the last time
        while self.total > enough and self.gap < _LAST_GAP:
            self.gap = self.gap * 4 or _FIRST_GAP
            self._join(lists)
        if self.total > enough:
            share = enough / self.total
            for marks in lists:
                del marks[: len(marks) - int(len(marks) * share)]
            self.dropped += self.total - sum(map(len, lists))
            self.total = sum(map(len, lists))

    def _join(self, lists: list[list[Mark]]) -> None:
        for marks in lists:
            marks[:] = _joined(marks, self.gap, self.gap_of_changes)
        self.total = sum(map(len, lists))


def _joined(marks: list[Mark], quiet: int, changes: int) -> list[Mark]:
    last: dict[tuple[int, tuple[str, str, str, bool]], Mark] = {}
    out: list[Mark] = []
    for mark in marks:
        gap = quiet if mark.facts.quiet else changes
        key = (mark.lane, mark.facts.kind)
        before = last.get(key)
        if gap and before is not None and mark.time - before.until <= gap:
            before.join(mark)
        else:
            last[key] = mark
            out.append(mark)
    return out
