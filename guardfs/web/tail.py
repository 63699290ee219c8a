"""The last events of one guard as rows of the live page, and which of them a reader wants. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from guardfs.audit.select import Filter
from guardfs.audit.show import cells
from guardfs.report.values import number, text

ROWS = 10_000
"""Events that are remembered; at 200 a second, the last 50 s."""

TOLD = 1_000
"""Those of `INCIDENTS` that are remembered besides: they are rare, and what a reader looks for."""

INCIDENTS = frozenset(("incident", "forgotten", "stale", "unstaged", "gap", "torn", "error"))
"""What "incidents only" shows: somebody should look at it."""

_KEYS = ("lane", "session", "verdict", "would")


class Tail:
    """Remembers rows. A row is JSON-able: n (the event's number in its log), t (us since the epoch), op, lane, session,
    verdict, would, errno, and words to show: who, where, what, result, tone (see `Cells`). Empty ones are left out."""

    def __init__(self, rows: int = ROWS) -> None:
        self._rows: deque[tuple[int, dict[str, Any]]] = deque(maxlen=rows)
        self._told: deque[tuple[int, dict[str, Any]]] = deque(maxlen=TOLD)

    def add(self, stamp: int, event: Mapping[str, Any], time: int) -> None:
        """Takes in an event, whatever it holds. stamp: larger than any before."""
        said = cells(event)
        row: dict[str, Any] = {"n": number(event.get("seq")), "t": time, "op": text(said.op)}
        values = {key: text(event.get(key)) for key in _KEYS}
        words = {
            "who": text(said.who),
            "where": text(said.where),
            "what": text(said.what),
            "result": text(said.result),
        }
        values |= words | {"tone": said.tone}
        row |= {key: value for key, value in values.items() if value}
        if errno := number(event.get("errno")):
            row["errno"] = errno
        self._rows.append((stamp, row))
        if said.op in INCIDENTS:
            self._told.append((stamp, row))

    def since(self, stamp: int, wanted: Filter, most: int) -> tuple[list[dict[str, Any]], bool]:
        """The rows after *stamp* that are *wanted*, oldest first, the last *most*; and whether there are more."""
        rows = self._told if wanted.ops == INCIDENTS else self._rows
        found: list[dict[str, Any]] = []
        for number_, row in reversed(rows):
            if number_ <= stamp:
                break
            if wanted.match(row):
                if len(found) == most:
                    return found[::-1], True
                found.append(row)
        return found[::-1], False
