"""From an operation as the log names it to the events of the fence machine. Pure.

An operation touches one or two names: that of a rename or link as well as its target's. Each name that is a transcript,
or a transcript's lock file, gives one event. What changes nothing and failed gives none, but for a look that found
nothing: "absent" is what the agent then relies on.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Callable, Sequence

import msgspec

from guardfs.audit.event import Kind as NameKind
from guardfs.fence.events import Kind
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.policy.model import OperationClass
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.names import NameRules

_OF_TRANSCRIPT = {
    "look": Kind.LOOK,
    "create": Kind.CREATE,
    "mknod": Kind.CREATE,
    "symlink": Kind.CREATE,
    "truncate": Kind.TRUNCATE,
    "attributes": Kind.ATTRIBUTES,
    "xattr": Kind.ATTRIBUTES,
    "link": Kind.ATTRIBUTES,
    "unlink": Kind.UNLINK,
    "rename": Kind.RENAME_AWAY,
}


_REMEMBERED = 4096
"""Lock files whose transcript is remembered."""

Step = tuple[Kind, bytes, Fingerprint | None, Fingerprint | None, bytes | None]
"""An `Event` but for who and when: kind, transcript, before, after, to."""


class Happening(msgspec.Struct, frozen=True, gc=False):
    """One operation, done or failed.

    op: as in the audit log. kind: the kind of *path* or, of a rename or link, the greater one of both names. path, to:
    raw bytes below the mount. before, after: fingerprints of the file; replaced: of the one that a rename took the name
    from; None where nobody knows. records: what a write ended or began. writes: an open that may write. mono, wall: ns.
    fenced: False for what says nothing of fences: an fstat. staged, side, aside, truncates: as in `Event`. kept: of
    what was written to a lock file, `lockfile.is_kept`.
    """

    op: str
    kind: NameKind
    path: bytes
    mono: int
    wall: int
    errno: int = 0
    to: bytes | None = None
    before: Fingerprint | None = None
    after: Fingerprint | None = None
    replaced: Fingerprint | None = None
    records: tuple[RecordMeta, ...] = ()
    operation: OperationClass | None = None
    writes: bool = False
    fenced: bool = True
    staged: bool = False
    side: bool = False
    aside: bool = False
    truncates: bool = False
    kept: bool = False


class Feed:
    """Makes events for one mount. watches: whether the machine wants to know of a transcript (`Machine.watches`)."""

    def __init__(self, names: NameRules, watches: Callable[[bytes], bool]) -> None:
        self._watches = watches
        self._transcripts: dict[bytes, bytes] = {}
        self.use(names)

    def use(self, names: NameRules) -> None:
        """From now on these rules say which names are locks and transcripts."""
        self._names = names
        self._transcripts.clear()

    def steps(self, happening: Happening) -> Sequence[Step]:
        """What the machine is to be told of, in order."""
        if not happening.fenced:
            return ()
        if happening.errno and not (happening.op == "look" and happening.errno == errnos.ENOENT):
            return ()
        if happening.to is not None and happening.op in ("rename", "link"):
            return self._two_names(happening)
        if happening.kind is NameKind.LOCK:
            return self._lock(happening.path, "kept" if happening.kept else happening.op)
        if not self._watches(happening.path):
            return ()
        kind = _kind(happening)
        if kind is None:
            return ()
        before, after = happening.before, happening.after
        if kind is Kind.LOOK:
            before, after = None, ABSENT if happening.errno else after
        elif kind is Kind.CREATE:
            before = ABSENT
        elif kind is Kind.UNLINK:
            after = ABSENT
        return ((kind, happening.path, before, after, None),)

    def _two_names(self, happening: Happening) -> Sequence[Step]:
        """A rename or link, each of whose names may be a transcript, a lock, or neither."""
        found: list[Step] = []
        path, to = happening.path, happening.to or b""
        rename = happening.op == "rename"
        if self._kind(path) is NameKind.LOCK:
            found += self._lock(path, "unlink" if rename else "look")
        elif self._kind(path) is NameKind.TRANSCRIPT and self._watches(path):
            away = Kind.RENAME_AWAY if rename else Kind.ATTRIBUTES
            after = ABSENT if rename else happening.after
            found.append((away, path, happening.before, after, to))
        if self._kind(to) is NameKind.LOCK:
            found += self._lock(to, "create")
        elif self._kind(to) is NameKind.TRANSCRIPT and self._watches(to):
            found.append((Kind.RENAME_OVER, to, happening.replaced, happening.after, path))
        return found

    def _lock(self, path: bytes, op: str) -> Sequence[Step]:
        transcript = self.transcript_of(path)
        if op in ("create", "mknod", "symlink"):
            kind = Kind.LOCK_CREATED
        elif op == "unlink":
            kind = Kind.LOCK_REMOVED
        elif op == "kept":
            kind = Kind.LOCK_KEPT
        elif op in ("look", "open") and self._watches(transcript):
            kind = Kind.LOCK_LOOK
        else:
            return ()
        return ((kind, transcript, None, None, None),)

    def _kind(self, path: bytes) -> NameKind:
        return self._names.kind(path[path.rfind(b"/") + 1 :])

    def transcript_of(self, path: bytes) -> bytes:
        """The path of the transcript that the lock *path* belongs to."""
        known = self._transcripts.get(path)
        if known is not None:
            return known
        if len(self._transcripts) >= _REMEMBERED:
            self._transcripts.clear()
        slash = path.rfind(b"/") + 1
        found = path[:slash] + (self._names.transcript_of(path[slash:]) or path[slash:])
        self._transcripts[path] = found
        return found


def _kind(happening: Happening) -> Kind | None:
    op = happening.op
    if op == "write":
        return Kind.REWRITE if happening.operation == "rewrite" else Kind.APPEND
    if op == "open":
        return Kind.OPEN_WRITE if happening.writes else Kind.OPEN_READ
    return _OF_TRANSCRIPT.get(op)
