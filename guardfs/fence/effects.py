"""What the machine answers: the relation of a writer to the fences, and what became of them. Pure data."""

from __future__ import annotations

from typing import Literal

import msgspec

from guardfs.fence.changes import Change, Content
from guardfs.fence.events import Actor, ProcessKey
from guardfs.fence.fingerprint import Fingerprint
from guardfs.policy.model import FenceRelation

CheckOutcome = Literal["same", "accepted", "survived", "died"]
"""What became of an owner's check: the fingerprint was as expected; it was not, and the version's rule accepts
that; it was not, and the owner went on although the known rule says it would not; the turn died of it."""

CloseReason = Literal["closed", "died", "exit", "idle", "replaced"]
"""Why a fence closed: the owner's last check; a check that failed; the owner's process ended; nothing of the
owner's was seen for the idle timeout; the same process opened a new one."""

CulpritKind = Literal["lane", "own", "metadata", "drift", "unseen"]
"""Who broke a fence: a writer of another process, or another lane of the same one under the lock; the owner's own
process outside its lock; somebody who changed attributes only; nobody, only the times changed below the mount; a
writer below the mount."""


class FenceFacts(msgspec.Struct, frozen=True):
    """What names one fence in every effect. lane, process: the owner's. opened: wall clock, ns."""

    transcript: bytes
    token: int
    lane: str
    process: ProcessKey
    opened: int


class FenceOpened(msgspec.Struct, frozen=True, tag=True):
    """An owner relies on the transcript from now on. adopted: its opening was not seen; it was found by a later
    cycle."""

    fence: FenceFacts
    baseline: Fingerprint
    wall: int
    adopted: bool = False


class FenceRefreshed(msgspec.Struct, frozen=True, tag=True):
    """The owner looked again: it relies on `baseline` now. Told at its release."""

    fence: FenceFacts
    baseline: Fingerprint
    wall: int


class FenceChecked(msgspec.Struct, frozen=True, tag=True):
    """The owner compared what it saw with what it expected. Told when the cycle shows what came of it: at its
    release. wall: of the look. incident: there is an `Incident` of it, too."""

    fence: FenceFacts
    expected: Fingerprint
    seen: Fingerprint
    outcome: CheckOutcome
    changes: int
    wall: int


class FenceClosed(msgspec.Struct, frozen=True, tag=True):
    """A fence ended. lasted: ns."""

    fence: FenceFacts
    reason: CloseReason
    wall: int
    lasted: int


class Incident(msgspec.Struct, frozen=True, tag=True):
    """A fence that a change broke. culprit: the change that is to blame, None where `drift` or `unseen` came
    without an event. changes: the kept ones since the owner's baseline, oldest first; count: of all. after_ns: from
    the owner's baseline to the culprit; before_ns: from the culprit to the check. content: what all of them amount
    to. rule: name of the version rule in force. lost: the turn died of it, as its behaviour shows."""

    fence: FenceFacts
    expected: Fingerprint
    seen: Fingerprint
    baseline_wall: int
    wall: int
    kind: CulpritKind
    culprit: Change | None
    changes: tuple[Change, ...]
    count: int
    content: Content
    after_ns: int
    before_ns: int
    rule: str
    lost: bool = True


class Forgotten(msgspec.Struct, frozen=True, tag=True):
    """The owner went on from its own leaf although others had appended: their records are on a dead branch.
    changes: those that wrote them (kept ones)."""

    fence: FenceFacts
    changes: tuple[Change, ...]
    wall: int


class WroteUnlocked(msgspec.Struct, frozen=True, tag=True):
    """What the owner wrote, by all that showed under its own lock, was written under that of another lane of its
    process: its next check does not expect it."""

    fence: FenceFacts
    wall: int


class Stale(msgspec.Struct, frozen=True, tag=True):
    """An owner whose fence was closed by the idle timeout came back as if it still held it. fence: the old one,
    with its old token. away: ns since it was last seen."""

    fence: FenceFacts
    away: int
    wall: int


class LockLost(msgspec.Struct, frozen=True, tag=True):
    """A lock file was taken from under its living holder. by: who removed or replaced it."""

    transcript: bytes
    holder: Actor
    by: Actor
    wall: int


class LockLeft(msgspec.Struct, frozen=True, tag=True):
    """The holder of a lock file ended without removing it."""

    transcript: bytes
    holder: Actor
    wall: int


class LockReclaimed(msgspec.Struct, frozen=True, tag=True):
    """Somebody removed the lock file that a dead process had left."""

    transcript: bytes
    holder: Actor
    by: Actor
    wall: int


Effect = (
    FenceOpened
    | FenceRefreshed
    | FenceChecked
    | FenceClosed
    | Incident
    | Forgotten
    | WroteUnlocked
    | Stale
    | LockLost
    | LockLeft
    | LockReclaimed
)


class Outcome(msgspec.Struct, frozen=True):
    """The answer to one event.

    relation: of the writer to the transcript's oldest open fence: ``own`` for at most one process at a time. token,
    owner: of that fence; 0 and "" where there is none. own_token: of the writer's own process's open fence, if any
    (a second owner's, while `relation` is ``other``), else 0. continues: the first record goes on from the oldest
    fence's owner's last one.
    """

    relation: FenceRelation = "none"
    token: int = 0
    owner: str = ""
    own_token: int = 0
    continues: bool = False
    effects: tuple[Effect, ...] = ()


NONE = Outcome()
"""Of nearly every event: no fence, nothing happened."""
