"""Is the log whole? Walks the hash chain across all files and compares its end with the head."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from guardfs.audit.chain import GENESIS, Head, digest, read_head
from guardfs.audit.logfile import link_of
from guardfs.audit.read import Line, events_backward, files_of, lines

MAX_PROBLEMS = 100
"""Problems listed; a log written over by something else would give one a line."""


class Problem(msgspec.Struct, frozen=True):
    """kind: ``changed missing repeated foreign torn cut rewritten empty``; where: file:line; text: one line
    for an operator."""

    kind: str
    where: str
    text: str


class Report(msgspec.Struct):
    """What was found. first, last: sequence numbers, None for an empty log. gaps: events that the guard
    itself said it lost. head: ``fits``, ``older`` (fits; lines were written since), ``beyond`` (the files
    left begin behind it), ``none`` or ``broken``. more: problems beyond `MAX_PROBLEMS`.
    """

    ok: bool
    files: list[str]
    lines: int
    first: int | None
    last: int | None
    gaps: int
    torn: int
    head: str
    problems: list[Problem]
    more: int = 0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class _Walk:
    def __init__(self, head: Head | None) -> None:
        self.head = head
        self.at_head: str | None = None
        self.problems: list[Problem] = []
        self.more = 0
        self.count = self.gaps = self.torn = 0
        self.first: int | None = None
        self.seq = 0
        self.hash = GENESIS
        self.where = ""

    def problem(self, kind: str, where: str, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(kind, where, text))
        else:
            self.more += 1

    def line(self, line: Line) -> None:
        self.count += 1
        link = link_of(line.raw)
        if not line.whole:
            self.problem("torn", line.where, "unfinished line at the end of the file")
            if link is None:
                return
        if link is None or line.event is None:
            self.problem("foreign", line.where, "not a line of the log; written or damaged by somebody else")
            return
        hashed = digest(line.raw)
        if self.first is None:
            self.first = link.seq
            if link.seq == 1 and link.prev != GENESIS:
                self.problem("changed", line.where, "line 1 of the chain does not begin it")
        elif link.seq > self.seq + 1:
            missing = f"seq {self.seq + 1}" + (f" to {link.seq - 1}" if link.seq > self.seq + 2 else "")
            self.problem("missing", line.where, f"missing before this line: {missing}, after {self.where}")
        elif link.seq <= self.seq:
            self.problem("repeated", line.where, f"seq {link.seq} again; the line before has {self.seq}")
        elif link.prev != self.hash:
            self.problem(
                "changed", self.where, f"changed: the next line ({line.where}) has another hash of it"
            )
        self.seq, self.hash, self.where = link.seq, hashed, line.where
        if self.head is not None and link.seq == self.head.seq:
            self.at_head = hashed
        self._note(line.event)

    def _note(self, event: dict[str, Any]) -> None:
        op = event.get("op")
        if op == "gap" and isinstance(event.get("count"), int):
            self.gaps += event["count"]
        elif op == "torn":
            self.torn += 1


def verify(path: str, head_path: str | None = None) -> Report:
    """Checks the log at *path* with all its rotated files. head_path: the head; None: where the log itself
    says it is.

    A log that is being written may be checked: its head is read first, so it can only be older than the log.
    Raises GuardError
    if *path* cannot be read or is no log.
    """
    if head_path is None:
        head_path = _named_head(path)
    head = read_head(head_path) if head_path else None
    if head is not None and head.file and os.path.abspath(path) != head.file:
        head = None  # the head of another log, or of this one before it was moved: it proves nothing here
    _wait_for_newline(path)
    walk = _Walk(head)
    for line in lines(path):
        walk.line(line)
    state = _compare(walk, path) if head is not None else "none"
    ok = not walk.problems
    last = walk.seq if walk.first is not None else None
    names = files_of(path)
    return Report(
        ok, names, walk.count, walk.first, last, walk.gaps, walk.torn, state, walk.problems, walk.more
    )


def _compare(walk: _Walk, path: str) -> str:
    head = walk.head
    assert head is not None
    end = walk.where or path
    if walk.first is None or walk.seq < head.seq:
        left = head.seq - walk.seq
        walk.problem(
            "cut", end, f"the end is cut off: {left} lines up to seq {head.seq} were written after this one"
        )
        return "broken"
    if head.seq < walk.first:
        return "beyond"
    if walk.at_head != head.hash:
        text = f"seq {head.seq} is not the line that the guard wrote: the log was rewritten"
        walk.problem("rewritten", end, text)
        return "broken"
    return "fits" if head.seq == walk.seq else "older"


def _named_head(path: str) -> str | None:
    """Where the log says its head is kept: in its last event ``log`` that names one."""
    for line in events_backward(path):
        if line.event is not None and line.event.get("op") == "log":
            named = line.event.get("head")
            if isinstance(named, str):
                return named
    return None


def _wait_for_newline(path: str) -> None:
    """A live log may be in the middle of a write: gives it up to a second, as long as its last line is
    unfinished."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                if not size:
                    return
                file.seek(size - 1)
                if file.read(1) == b"\n":
                    return
        except OSError:
            return
        time.sleep(0.05)
