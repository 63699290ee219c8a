"""Which file names are transcripts, which are their locks. Pure.

A policy says it, in `[transcripts]`: in OpenClaw's sessions directory transcripts are `*.jsonl`; a trajectory, a
checkpoint and what was renamed away (`.jsonl.reset.<time>`) are not; the lock of a transcript has `.lock` appended.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from guardfs.audit.event import Kind
from guardfs.policy.model import Transcripts

_REMEMBERED = 2048


def _compile(globs: Iterable[str]) -> re.Pattern[bytes]:
    """One pattern for all *globs*, on raw names; no glob matches nothing."""
    parts = [fnmatch.translate(glob) for glob in globs]
    return re.compile("|".join(parts).encode("utf-8", "surrogateescape") if parts else rb"(?!)", re.DOTALL)


class NameRules:
    """Sorts names (without directories) into transcripts, locks and others; answers are remembered."""

    def __init__(self, transcripts: Transcripts) -> None:
        self._include = _compile(transcripts.include)
        self._exclude = _compile(transcripts.exclude)
        self._locks = bool(transcripts.lock)
        prefix, _, suffix = transcripts.lock.partition("{transcript}")
        self._prefix = prefix.encode("utf-8", "surrogateescape")
        self._suffix = suffix.encode("utf-8", "surrogateescape")
        self._known: dict[bytes, Kind] = {}

    def kind(self, name: bytes) -> Kind:
        """What the file *name* is."""
        known = self._known.get(name)
        if known is not None:
            return known
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        kind = self._known[name] = self._decide(name)
        return kind

    def transcript_of(self, name: bytes) -> bytes | None:
        """The transcript that the lock *name* belongs to, or None if it is no lock."""
        if not self._locks:
            return None
        end = len(name) - len(self._suffix)
        if not (name.startswith(self._prefix) and name.endswith(self._suffix) and end > len(self._prefix)):
            return None
        inner = name[len(self._prefix) : end]
        return inner if self._is_transcript(inner) else None

    def _is_transcript(self, name: bytes) -> bool:
        return self._include.match(name) is not None and self._exclude.match(name) is None

    def _decide(self, name: bytes) -> Kind:
        if self.transcript_of(name) is not None:
            return Kind.LOCK
        return Kind.TRANSCRIPT if self._is_transcript(name) else Kind.OTHER
