"""Turns a recorded trace of a gateway's system calls into the events that a mount would see of them.

A trace has no FUSE requests in it. What the kernel would ask: a name lookup for every stat, lstat and access, and
before every open, rename and unlink; no word of an open that failed with ENOENT beyond its lookup; nothing that
tells of an fstat. Fingerprints are made up: one inode a file, times that count its changes, sizes as the trace has
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guardfs.audit.event import Kind as NameKind
from guardfs.fence.events import Actor, Event, Kind
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.policy.model import Transcripts
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.names import NameRules

TGID, START = 8784, 50798
TRACES = Path(__file__).parent.parent / "traces"
_NAMES = NameRules(Transcripts(exclude=("*.trajectory.jsonl", "*.checkpoint.*.jsonl")))
_VALUE = '"%s":"([^"]*)"'


def load(path: Path) -> list[dict[str, Any]]:
    """The lines of a trace; sizes of writes that it leaves out are filled in from the next size it tells."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for index, line in enumerate(lines):
        if line["op"] == "write" and line.get("bytes") is None:
            line["bytes"] = _missing(lines, index)
    return lines


def _missing(lines: list[dict[str, Any]], index: int) -> int:
    """Bytes of a write without a number: one, unless it is the last before the next size that is told."""
    name = lines[index]["path"]
    size = 0
    for line in lines[:index]:
        if line["path"] == name:
            size = line["size"] if line.get("size") is not None else size
            size += line["bytes"] if line["op"] == "write" else 0
    for line in lines[index + 1 :]:
        if line["path"] == name and line["op"] == "write":
            return 1
        if line["path"] == name and line.get("size") is not None:
            return int(line["size"]) - size
    return 1


class TraceEvents:
    """The events of one trace, one line after the other."""

    def __init__(self) -> None:
        self._files: dict[str, Fingerprint] = {}
        self._changes = 0
        self._mono = self._wall = 0

    def convert(self, lines: list[dict[str, Any]]) -> Iterator[tuple[int, Event]]:
        """Pairs of a line's number, from 1, and an event that it gives."""
        for number, line in enumerate(lines, 1):
            self._mono = int(line["t"] * 1e9)
            self._wall = 1_795_395_700_000_000_000 + self._mono
            for event in self._line(line):
                yield number, event

    def _line(self, line: dict[str, Any]) -> Iterator[Event]:
        name: str = line["path"]
        raw = name.encode()
        kind = _NAMES.kind(raw)
        if kind is NameKind.LOCK:
            yield from self._lock(line, _NAMES.transcript_of(raw) or b"")
        elif kind is NameKind.TRANSCRIPT:
            if line.get("size") is not None and line["op"] in ("stat", "lstat", "fstat"):
                self._believe(name, line["size"])
            yield from self._transcript(line, name)

    def _lock(self, line: dict[str, Any], transcript: bytes) -> Iterator[Event]:
        op, flags = line["op"], line.get("flags") or []
        if op == "open" and "creat" in flags:
            if not line.get("error"):
                yield self._event(Kind.LOCK_CREATED, line, transcript)
        elif op == "unlink":
            yield self._event(Kind.LOCK_REMOVED, line, transcript)
        elif op == "open" or line.get("error"):  # of one that is there the kernel knows the rest
            yield self._event(Kind.LOCK_LOOK, line, transcript)

    def _transcript(self, line: dict[str, Any], name: str) -> Iterator[Event]:
        op, transcript = line["op"], name.encode()
        before = self._files.get(name, ABSENT)
        if op in ("stat", "lstat", "access", "open", "rename", "unlink", "utimensat"):
            yield self._event(Kind.LOOK, line, transcript, after=before)
        if line.get("error"):
            return
        if op == "open":
            yield from self._open(line, name, before)
        elif op == "write" and line["bytes"]:
            after = self._change(name, before._replace(size=before.size + line["bytes"]))
            records = (_record(line.get("head") or ""),)
            yield self._event(Kind.APPEND, line, transcript, before, after, records)
        elif op in ("rename", "unlink"):
            del self._files[name]
            kind = Kind.RENAME_AWAY if op == "rename" else Kind.UNLINK
            yield self._event(kind, line, transcript, before, ABSENT)

    def _open(self, line: dict[str, Any], name: str, before: Fingerprint) -> Iterator[Event]:
        flags, transcript = line.get("flags") or [], name.encode()
        if before == ABSENT and "creat" not in flags:
            before = self._change(name, Fingerprint(1, self._changes + 100, 0, 0, 0))  # older than the trace
        if before == ABSENT:
            after = self._change(name, Fingerprint(1, self._changes + 100, 0, 0, 0))
            yield self._event(Kind.CREATE, line, transcript, before, after)
        elif "trunc" in flags:
            after = self._change(name, before._replace(size=0))
            yield self._event(Kind.TRUNCATE, line, transcript, before, after)
        else:
            yield self._event(Kind.OPEN_READ if "rdonly" in flags else Kind.OPEN_WRITE, line, transcript)

    def _believe(self, name: str, size: int) -> None:
        """A size that the trace tells: of a file older than the trace the first news, of another one a proof."""
        known = self._files.get(name)
        if known is None or known.mtime_ns < 0:
            self._change(name, Fingerprint(1, self._changes + 100, size, 0, 0))
        elif known.size != size:
            raise AssertionError(f"{name} has {size} bytes in the trace and {known.size} here")

    def _change(self, name: str, state: Fingerprint) -> Fingerprint:
        self._changes += 1
        changed = self._files[name] = state._replace(mtime_ns=self._changes, ctime_ns=self._changes)
        return changed

    def _event(
        self,
        kind: Kind,
        line: dict[str, Any],
        transcript: bytes,
        before: Fingerprint | None = None,
        after: Fingerprint | None = None,
        records: tuple[RecordMeta, ...] = (),
    ) -> Event:
        thread: str = line["thread"]
        main = thread == "main"
        actor = Actor(TGID, START, TGID if main else TGID + int(thread.split("-")[1]), main, "gateway")
        return Event(kind, transcript, actor, self._mono, self._wall, before, after, records)


def _record(head: str) -> RecordMeta:
    found = {
        key: re.search(_VALUE % key, head) for key in ("type", "role", "id", "parentId", "provider", "model")
    }
    values = {key: match[1] if match else None for key, match in found.items()}
    message = values["type"] == "message"
    return RecordMeta(
        values["type"],
        values["role"] if message else None,
        values["id"],
        values["parentId"],
        values["provider"] if message else None,
        values["model"] if message else None,
    )
