"""What the daemon counts of its own work, for whoever draws curves of it: the value of the extended attribute
`user.guardfs.counters` of the mount's root, as JSON.

Counting is on the request path, so it is an addition or two an operation (0.4 us in all). All numbers only grow; they
begin anew with each daemon.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from time import perf_counter_ns
from typing import Any

import msgspec

BOUNDS_US = (
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000
)  # fmt: skip
"""Upper bounds of the classes of durations, microseconds: from an answer out of memory to a caller that was held."""

MAX_LANES = 50
"""Lanes that are counted by name. With the seventeen operations and four verdicts, an attribute (64 KiB) holds that."""

OTHER = "other"
"""Lanes that no policy names, and those beyond `MAX_LANES`: whoever gives programs many names makes no more series."""

_PADDED = 4096

_BOUNDS_NS = tuple(bound * 1000 for bound in BOUNDS_US)
_SUM = len(BOUNDS_US) + 1

clock = perf_counter_ns


def took(counts: list[int], ns: int) -> None:
    """Count one duration of *ns* nanoseconds in *counts*, made by `Counters.timing`."""
    counts[bisect_left(_BOUNDS_NS, ns)] += 1
    counts[_SUM] += ns


class Counters:
    """Durations of requests, and operations by what they were, whose, and what was done with them."""

    def __init__(self, lanes: Iterable[str] = ()) -> None:
        self._timings: dict[str, list[int]] = {}
        self._operations: dict[tuple[str, str, str], int] = {}
        self._named: set[str] = set()
        self.use(lanes)

    def use(self, lanes: Iterable[str]) -> None:
        """From now on these lanes have a policy that names them; those of policies before keep their numbers."""
        for lane in lanes:
            if len(self._named) >= MAX_LANES:
                break
            self._named.add(lane)

    def timing(self, request: str) -> list[int]:
        """The counts of one kind of request: one for each class, one for what took longer, and the sum in ns."""
        return self._timings.setdefault(request, [0] * (_SUM + 1))

    def operation(self, op: str, lane: str, verdict: str) -> None:
        """Count one operation."""
        key = (op, lane if lane in self._named else OTHER, verdict)
        self._operations[key] = self._operations.get(key, 0) + 1

    def facts(self) -> dict[str, Any]:
        """All of it. operations: by lane, operation and verdict. requests: what came, by kind."""
        operations: dict[str, dict[str, dict[str, int]]] = {}
        for (op, lane, verdict), count in sorted(self._operations.items()):
            operations.setdefault(lane, {}).setdefault(op, {})[verdict] = count
        return {
            "v": 1,
            "operations": operations,
            "bounds_us": BOUNDS_US,
            "requests": {
                name: {"counts": counts[:_SUM], "sum_ns": counts[_SUM]}
                for name, counts in sorted(self._timings.items())
                if any(counts)
            },
        }

    def encode(self) -> bytes:
        """The value of the attribute; padded, since readers ask for the size first and then for the value."""
        value = msgspec.json.encode(self.facts())
        return value + b" " * (-len(value) % _PADDED)
