"""What a path is to a policy. Pure."""

from __future__ import annotations

from guardfs.audit.event import Kind
from guardfs.policy.model import FileClass, Transcripts
from guardfs.transcript.names import NameRules


class Files:
    """Sorts paths as the mount does, by the `[transcripts]` of a policy."""

    def __init__(self, transcripts: Transcripts) -> None:
        self._names = NameRules(transcripts)
        self._registry = transcripts.registry.encode("utf-8", "surrogateescape")

    def of(self, path: bytes, to: bytes | None = None) -> FileClass:
        """The class of an operation on *path*, renamed or linked *to*."""
        kind = self._names.kind(path[path.rfind(b"/") + 1 :])
        if kind is Kind.TRANSCRIPT:
            return "transcript"
        if kind is Kind.LOCK:
            return "lock"
        return "registry" if self._registry and self._registry in (path, to) else "other"
