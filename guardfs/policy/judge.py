"""The policy in force, and what it asks about that only the past tells: who holds a lock, who claims to be whom. Pure.

One for each mount. The mount says what is done and what has happened; `judge` says what that is called.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from guardfs.audit.event import Kind
from guardfs.fence.locks import LockTable
from guardfs.lanes.writer import Writer
from guardfs.policy.decide import Decider
from guardfs.policy.facts import Decision, Facts, operation_class
from guardfs.policy.model import FileClass, LockRelation, OperationClass
from guardfs.transcript.names import NameRules
from guardfs.transcript.records import RecordMeta

CLAIM = b"user.guardfs.lane"
"""The extended attribute by which a writer claims a lane. The guard keeps it: writing it below would change the file's
ctime, which the agent takes for another's write."""

MAX_CLAIM = 200
"""Characters of a claim; a lane's name has at most 64."""

_CLAIMS = 4096
_FILES: dict[Kind, FileClass] = {Kind.OTHER: "other", Kind.TRANSCRIPT: "transcript", Kind.LOCK: "lock"}


class Judgement(NamedTuple):
    """A decision, and those of its facts that the log has not got elsewhere."""

    decision: Decision
    lock: LockRelation
    claim: str | None


class Judge:
    """Decides by the policy in force; `use` puts another one in its place, between two operations."""

    def __init__(self, decider: Decider, names: NameRules) -> None:
        self.locks = LockTable()
        self._claims: OrderedDict[tuple[int, int, bytes], str] = OrderedDict()
        self.use(decider, names)

    def use(self, decider: Decider, names: NameRules) -> None:
        """From now on decide by *decider*; *names* are those of the same policy."""
        self.decider = decider
        self._names = names
        self.registry = decider.policy.transcripts.registry.encode("utf-8", "surrogateescape")
        self.hits = [0] * (
            len(decider.policy.rules) + 1
        )  # the last: no rule, which a checked policy never comes to

    def judge(
        self,
        writer: Writer,
        op: str,
        kind: Kind,
        path: bytes,
        to: bytes | None = None,
        record: RecordMeta | None = None,
        operation: OperationClass | None = None,
    ) -> Judgement:
        """What the policy says of *op* by *writer* on *path*. operation: its class, where *op* alone does not tell."""
        file = _FILES[kind]
        lock: LockRelation = "free"
        claim = None
        process = writer.process
        if kind is Kind.OTHER:
            if path == self.registry or (to is not None and to == self.registry):
                file = "registry"
        elif process is not None:
            transcript = path if kind is Kind.TRANSCRIPT else self.transcript_of(path)
            lock = self.locks.relation(transcript, process.tgid, process.start)
            if self._claims:
                claim = self._claims.get((process.tgid, process.start, path))
        else:
            transcript = path if kind is Kind.TRANSCRIPT else self.transcript_of(path)
            lock = self.locks.relation(transcript, 0, 0)
        decision = self.decider.decide(
            Facts(
                writer,
                operation or operation_class(op),
                file,
                path,
                to,
                record,
                lock=lock,
                claim=claim,
            )
        )
        self.hits[decision.index] += 1
        return Judgement(decision, lock, claim)

    def happened(self, writer: Writer, op: str, kind: Kind, path: bytes, to: bytes | None = None) -> None:
        """An operation on a lock file has succeeded."""
        if kind is not Kind.LOCK:
            return
        if op in ("create", "mknod", "symlink"):
            self._locked(writer, path)
        elif op == "unlink":
            self.locks.removed(self.transcript_of(path))
        elif op in ("rename", "link") and to is not None:
            moved, onto = op == "rename" and self._is_lock(path), self._is_lock(to)
            if moved and onto:
                self.locks.renamed(self.transcript_of(path), self.transcript_of(to))
            elif moved:
                self.locks.removed(self.transcript_of(path))
            elif onto:
                self._locked(writer, to)

    def _locked(self, writer: Writer, path: bytes) -> None:
        process = writer.process
        tgid, start = (process.tgid, process.start) if process is not None else (0, 0)
        self.locks.created(self.transcript_of(path), tgid, start)

    def claim(self, writer: Writer, path: bytes, lane: str | None) -> None:
        """*writer*'s process says that it is *lane* in what it does to the transcript *path*; None: no more."""
        process = writer.process
        if process is None:
            return
        key = (process.tgid, process.start, path)
        self._claims.pop(key, None)
        if lane is not None:
            self._claims[key] = lane
            if len(self._claims) > _CLAIMS:
                self._claims.popitem(last=False)

    def claimed(self, writer: Writer, path: bytes) -> str | None:
        """What *writer*'s process claims to be."""
        process = writer.process
        return None if process is None else self._claims.get((process.tgid, process.start, path))

    def transcript_of(self, path: bytes) -> bytes:
        """The path of the transcript that the lock *path* belongs to."""
        slash = path.rfind(b"/") + 1
        return path[:slash] + (self._names.transcript_of(path[slash:]) or path[slash:])

    def _is_lock(self, path: bytes) -> bool:
        return self._names.kind(path[path.rfind(b"/") + 1 :]) is Kind.LOCK
