"""Runs of writes to files that are no transcripts become one event. Pure: time comes in as an argument.

A copy of a large file through the mount is thousands of writes; one line with their count says as much.
"""

from __future__ import annotations

import msgspec

from guardfs.audit.event import Kind, Operation

WINDOW_NS = 50_000_000
"""A run ends this long after its first write, ns: what an operator who watches takes for "at once"."""


class Run(msgspec.Struct, gc=False):
    """Writes by one thread to one file, one after the other. *size* and *us* are sums, *first* has path,
    writer and offset."""

    first: Operation
    count: int
    size: int
    us: int


class Merger:
    """Holds the open runs. Everything that comes out of `take` and `due` is to be logged in that order.

    A run ends with its window, and before that at the next thing that its thread does or that is done to its
    file by anyone, so that the order of the log is the order in which things happened to a file and in which
    a thread did them.
    """

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        self.runs: dict[int, Run] = {}
        self._window_ns = window_ns

    def take(self, item: Operation) -> list[Operation | Run]:
        """Takes in *item*; returns what is now to be logged."""
        runs = self.runs
        mergeable = item.kind is Kind.OTHER and item.op == "write" and not item.errno and item.detail is None
        if mergeable:
            run = runs.get(item.writer.tid)
            if run is not None and self._continues(run, item):
                run.count += 1
                run.size += item.size or 0
                run.us += item.us
                return []
        ended: list[Operation | Run] = []
        if runs:
            for tid, run in list(runs.items()):
                first = run.first
                if tid == item.writer.tid or first.path == item.path or first.path == item.to:
                    ended.append(runs.pop(tid))
        if mergeable:
            runs[item.writer.tid] = Run(item, 1, item.size or 0, item.us)
        else:
            ended.append(item)
        return ended

    def due(self, now_ns: int, *, everything: bool = False) -> list[Run]:
        """The runs whose window is over at *now_ns* (or all), oldest first."""
        over = [
            tid
            for tid, run in self.runs.items()
            if everything or not 0 <= now_ns - run.first.time_ns < self._window_ns
        ]
        return [self.runs.pop(tid) for tid in over]

    def _continues(self, run: Run, item: Operation) -> bool:
        first = run.first
        return (
            first.writer is item.writer
            and first.node == item.node
            and first.path == item.path
            and first.append == item.append
            and first.decision is item.decision
            and 0 <= item.time_ns - first.time_ns < self._window_ns
        )
