"""How an agent's fences show: the named strategies of the policy. A new one is a class here; nothing else changes.
Pure."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Protocol

from guardfs.fence.cycle import LOOK, MAIN_READ, MAIN_WRITE, READ, WRITE, Cycle
from guardfs.fence.events import CHANGES, Actor, Kind


class Reading(Enum):
    """What a cycle that has ended meant to a fence of its process."""

    IGNORED = "ignored"
    """It was not the owner's."""
    OPENED = "opened"
    """A new fence; its baseline is the cycle's last look."""
    REFRESHED = "refreshed"
    """The owner checked (first look), and relies on its last look from now on."""
    ENDED = "ended"
    """The owner checked, and did not look again: the fence closed, or the turn died."""


class FenceProtocol(Protocol):
    """A strategy: which events begin and end a cycle of a process, and how to read one.

    begins, ends: kinds of events. `read` is asked when a cycle has ended (or its end cannot be seen any more);
    fenced: its process has a fence on the transcript. `bystander` is asked while it runs: whether it has already
    shown itself to be another lane's, not the owner's. `owns` says of an operation by the process of a fence's owner
    whether it is the owner's or another lane's; holds: in a lock cycle that is the owner's, as far as it tells;
    continues: whether what is written goes on from the owner's last record, None where nobody knows; rewrites: the
    cycle is of a kind in which an owner writes its transcript as a whole.
    """

    name: ClassVar[str]
    begins: ClassVar[frozenset[Kind]]
    ends: ClassVar[frozenset[Kind]]

    def read(self, cycle: Cycle, fenced: bool) -> Reading: ...

    def bystander(self, cycle: Cycle) -> bool: ...

    def owns(
        self,
        actor: Actor,
        kind: Kind,
        *,
        holds: bool,
        continues: bool | None,
        truncates: bool,
        rewrites: bool = False,
    ) -> bool: ...


_MAIN_NEVER = frozenset({Kind.TRUNCATE, Kind.RENAME_AWAY, Kind.RENAME_OVER, Kind.UNLINK})
"""What the main thread of a gateway does to a transcript never for the run itself, but for a whole new content in a
release that keeps its lock file while the model answers."""


class LockFile:
    """OpenClaw's lock files (design, section 5; traces of 2026.5.20; the code of 2026.5.22 to 7.35 keeps to the
    same).

    The owner's shapes: ``R L rr ww L`` opens (it reads the transcript first; an absent one shows as further looks);
    ``L ww L`` checks and refreshes (a changed transcript is read in between); ``L`` alone checks and ends. From
    2026.5.22 on a look that sets a baseline comes twice and is followed by a read of the whole file.

    Other lanes of the same process: ``L L R W`` (mirror, inject; without the write if there is nothing to do),
    ``R`` (readers), ``R R L R w R`` (compaction).
    """

    name: ClassVar[str] = "lock-file"
    begins: ClassVar[frozenset[Kind]] = frozenset({Kind.LOCK_CREATED})
    ends: ClassVar[frozenset[Kind]] = frozenset({Kind.LOCK_REMOVED})

    def bystander(self, cycle: Cycle) -> bool:
        shape = cycle.shape.replace(MAIN_READ, "").replace(MAIN_WRITE, "")
        if shape.startswith(LOOK + LOOK + READ):
            return shape.find(LOOK, 3) < 0
        return LOOK not in shape and READ in shape

    def read(self, cycle: Cycle, fenced: bool) -> Reading:
        shape = cycle.shape
        last = shape.rfind(LOOK)
        if last < 0 or self.bystander(cycle):
            return Reading.IGNORED
        tail, looks = shape[last + 1 :], shape.count(LOOK)
        if _joined(shape):
            tail, looks = tail.replace(READ, "").replace(WRITE, ""), looks - len(_MIRROR_LOOKS)
        if WRITE in tail:
            return Reading.IGNORED  # whoever relies on a file looks at it after writing
        main = MAIN_READ in shape or MAIN_WRITE in shape
        if _reads_first(shape) and (main or not fenced):
            return Reading.IGNORED if READ in tail and shape[last - 1] != LOOK else Reading.OPENED
        if fenced and _open_failed(cycle):
            return Reading.IGNORED
        if fenced:
            return Reading.ENDED if looks == 1 else Reading.REFRESHED
        if looks == 1 and (MAIN_WRITE in tail or not main):
            return Reading.IGNORED
        # A write of the main thread after the last look is another lane's, without the lock.
        return Reading.OPENED

    def owns(
        self,
        actor: Actor,
        kind: Kind,
        *,
        holds: bool,
        continues: bool | None,
        truncates: bool,
        rewrites: bool = False,
    ) -> bool:
        """A run appends by the main thread, under its own lock, or past it on from its own last record. Pool threads
        append for mirrors, which may share the run's lock cycle. A run never takes its transcript's name away, nor
        empties it, by the main thread: that is `/new`, a reset, a compaction by lines, or the header that
        `chat.inject` makes (the only ones that open with O_TRUNC). 2026.7.35 is different in the last: its runs make
        and write their transcript with O_TRUNC, under a lock that is told apart by what it says
        (`lockfile.is_kept`)."""
        if kind not in CHANGES:
            return True
        if kind is Kind.APPEND:
            return actor.main or continues is not False if holds else actor.main and continues is True
        if kind is Kind.CREATE:
            return holds and actor.main and (rewrites or not truncates)
        if kind is Kind.TRUNCATE and rewrites:
            return holds
        if kind in _MAIN_NEVER:
            return holds and not actor.main
        return holds


class NoFences:
    """``none``: nobody fences."""

    name: ClassVar[str] = "none"
    begins: ClassVar[frozenset[Kind]] = frozenset()
    ends: ClassVar[frozenset[Kind]] = frozenset()

    def read(self, cycle: Cycle, fenced: bool) -> Reading:
        return Reading.IGNORED

    def bystander(self, cycle: Cycle) -> bool:
        return False

    def owns(
        self,
        actor: Actor,
        kind: Kind,
        *,
        holds: bool,
        continues: bool | None,
        truncates: bool,
        rewrites: bool = False,
    ) -> bool:
        return True


PROTOCOLS: dict[str, FenceProtocol] = {each.name: each for each in (LockFile(), NoFences())}


_MIRROR_LOOKS = LOOK + LOOK


def _joined(shape: str) -> bool:
    """Whether a mirror has done its work in the middle of an owner's cycle: the gateway lets it have a lock that its
    process holds. Its looks, its read and its append are then among the owner's, whose first look comes first."""
    read = shape.rfind(READ, 0, max(0, shape.find(WRITE)))
    return read > 0 and shape.count(LOOK, 0, read) > len(_MIRROR_LOOKS)


def _reads_first(shape: str) -> bool:
    """Whether a read comes before the first look, counting only threads of the holder's kind."""
    read = shape.find(READ)
    return 0 <= read < shape.find(LOOK)


def _open_failed(cycle: Cycle) -> bool:
    """Whether it is a mirror's, and its third look was the lookup of an open that failed: the file was gone by
    then."""
    exists = [look.seen.exists for look in cycle.looks]
    return exists == [True, True, False] and cycle.shape.strip(MAIN_READ + MAIN_WRITE) == LOOK + LOOK + LOOK
