"""Counts by lane and file. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from errno import ENOENT
from typing import Any

import msgspec

from guardfs.audit.levels import CHANGES
from guardfs.report.values import number, text, transcript_of

MAX_ROWS = 5000
"""Pairs that are told apart; the others are counted by lane only."""

FURTHER = "(further files)"
FURTHER_LANES = "(further lanes)"

_OWN_NAME = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9A-Za-z])[0-9]{3,}(?![0-9A-Za-z])",
    re.I,
)
"""Of a temporary file's name: what makes it new each time."""


class Row(msgspec.Struct):
    """What one lane did to one file, the lock file beside it included. held: operations that the rules would not have
    let through at once, or did not."""

    lane: str
    file: str
    looks: int = 0
    writes: int = 0
    bytes: int = 0
    changes: int = 0
    locks: int = 0
    held: int = 0
    failed: int = 0

    def add(self, other: Row) -> None:
        """Adds the numbers of another row."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_NUMBERS = [field for field in Row.__struct_fields__ if field not in ("lane", "file")]


class Counts:
    """All rows. operations: in all."""

    def __init__(self) -> None:
        self.operations = 0
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Counts one operation."""
        path = text(event.get("path"))
        lock = path.endswith(".lock")
        row = self._row(text(event.get("lane")) or "?", _file(event, path))
        op, count = event.get("op"), max(1, number(event.get("count"), 1))
        self.operations += count
        failed = bool(event.get("errno"))
        absent = op == "look" and event.get("errno") == ENOENT  # an answer, not a failure: is the lock free?
        row.failed += failed and not absent
        if lock:
            row.locks += op == "create" and not failed
        elif op == "write":
            row.writes += 0 if failed else count
            row.bytes += 0 if failed else max(0, number(event.get("bytes")))
        elif op in CHANGES:
            row.changes += not failed
        else:
            row.looks += count
        row.held += "would" in event or event.get("verdict") not in ("allow", None)

    def by_lane(self) -> list[tuple[Row, list[Row]]]:
        """The sum of each lane, and its files; those who changed most first."""
        lanes: dict[str, tuple[Row, list[Row]]] = {}
        for row in self._rows.values():
            total, rows = lanes.setdefault(row.lane, (Row(row.lane, ""), []))
            total.add(row)
            rows.append(row)
        for _, rows in lanes.values():
            rows.sort(key=_most)
        return sorted(lanes.values(), key=lambda each: _most(each[0]))

    def _row(self, lane: str, file: str) -> Row:
        if (lane, file) not in self._rows and len(self._rows) >= MAX_ROWS:
            file = FURTHER
            if (lane, file) not in self._rows and len(self._rows) >= 2 * MAX_ROWS:
                lane = FURTHER_LANES
        return self._rows.setdefault((lane, file), Row(lane, file))


def total(rows: list[Row]) -> Row:
    """The sum of *rows*."""
    found = Row(rows[0].lane if rows else "", "")
    for row in rows:
        found.add(row)
    return found


def _file(event: Mapping[str, Any], path: str) -> str:
    """The file that an operation is counted under: the transcript for its lock; the target, not the temporary file, of
    a replacement; one name for all temporary files of a kind."""
    if isinstance(event.get("session"), str):
        return transcript_of(event)
    if event.get("op") == "rename" and (target := text(event.get("to"))):
        path = target
    base = path.rpartition("/")[2]
    return _OWN_NAME.sub("*", path) if base.startswith(".") or ".tmp" in base else path


def _most(row: Row) -> tuple[int, int, str, str]:
    return (-(row.writes + row.changes), -row.looks - row.locks, row.lane, row.file)
