"""One lock cycle of one process: what its holder did to the transcript while it had the lock file. Pure."""

from __future__ import annotations

from guardfs.fence.changes import Changes
from guardfs.fence.events import Actor, Kind
from guardfs.fence.fingerprint import Fingerprint
from guardfs.transcript.meta import RecordMeta

LOOK, READ, WRITE, MAIN_READ, MAIN_WRITE = "LRWrw"
"""Letters of a cycle's shape. The capital ones are by threads of the holder's kind (main or pool), the small ones
by the main thread while a pool thread holds the lock."""

_MAX_SHAPE = 64
_MAX_LOOKS = 6


class Look:
    """One look at the transcript. since: the changes after it. before: those that the owner's fence had at that
    moment, kept only where what was seen is not what the owner expects. staged: those of them that were kept from its
    view, None if there were none."""

    __slots__ = ("before", "mono", "seen", "since", "staged", "tid", "wall")

    def __init__(self, tid: int, seen: Fingerprint, mono: int, wall: int) -> None:
        self.tid = tid
        self.seen = seen
        self.mono = mono
        self.wall = wall
        self.since: Changes | None = None
        self.before: Changes | None = None
        self.staged: Changes | None = None


class Cycle:
    """From the creation of the lock file to its removal.

    actor: who created it. looks: its looks, oldest first; of many, the first ones and the last ones. orphan:
    somebody else took the lock file away; the holder does not know. leaf: id of the last record that its process
    wrote in it. kept: the lock file says that its holder keeps it while the model answers. taken: another lane of its
    process has taken the transcript's name away meanwhile. over: its holder has begun to release the lock. opening: a
    turn has begun in it, by all that shows: its fence will open when it ends.
    """

    __slots__ = (
        "_shape", "_tids", "actor", "kept", "leaf", "looks", "mono", "opening", "orphan", "over", "spoiled", "taken",
        "wall",
    )  # fmt: skip

    def __init__(self, actor: Actor, mono: int, wall: int) -> None:
        self.actor = actor
        self.mono = mono
        self.wall = wall
        self.looks: list[Look] = []
        self.orphan = False
        self.over = False
        self.kept = False
        self.taken = False
        self.opening = False
        self.spoiled = False  # what it read was rewritten after it looked
        self.leaf: str | None = None
        self._shape = ""
        self._tids: list[int] = []

    @property
    def shape(self) -> str:
        """What happened, in order, one letter each."""
        return self._shape

    @property
    def begun(self) -> bool:
        """Whether a thread of the holder's kind has looked or read. Whoever relies on a transcript does that first."""
        return LOOK in self._shape or READ in self._shape

    def begins(self, actor: Actor, kind: Kind) -> bool:
        """Whether *actor*, of its process, shows by this look or open that a turn begins in it."""
        if kind is Kind.OPEN_READ:
            return actor.main and not self.kin(actor) and self.begun
        return self.kin(actor) and READ in self._shape and LOOK not in self._shape

    @property
    def found_nothing(self) -> bool:
        """Whether it has looked twice or more, and there is no transcript: a turn may begin all the same."""
        return len(self.looks) > 1 and not self.looks[-1].seen.exists

    def lock_looked_at(self, actor: Actor) -> None:
        """A thread of its process looked at the lock file: whether it is still its own, before it removes it. One that
        is kept while the model answers is looked at time and again by whoever waits for it, of its own process too."""
        self.over = self.over or (self.begun and self.kin(actor) and not self.kept)

    def kin(self, actor: Actor) -> bool:
        """Whether *actor*, of the holder's process, is a thread of the holder's kind. The gateway's main thread
        looks at transcripts all the time; its pool threads do so for whoever holds the lock."""
        return actor.main == self.actor.main

    def note(self, letter: str, tid: int) -> None:
        """Something else than a look happened."""
        if len(self._shape) >= _MAX_SHAPE:  # how it began, and how it ends, is what tells cycles apart
            half = _MAX_SHAPE // 2
            self._shape = self._shape[:half] + self._shape[half + 1 :]
            del self._tids[half]
        self._shape += letter
        self._tids.append(tid)

    def read(self, tid: int) -> None:
        """A thread of the holder's kind opened the transcript to read."""
        since = self.looks[-1].since if self.looks else None
        if since is not None and any(change.kind in (Kind.REWRITE, Kind.TRUNCATE) for change in since.all()):
            self.spoiled = True
        self.note(READ, tid)

    def look(self, actor: Actor, seen: Fingerprint, mono: int, wall: int) -> Look:
        """A thread of the holder's kind looked."""
        self.note(LOOK, actor.tid)
        look = Look(actor.tid, seen, mono, wall)
        if len(self.looks) >= _MAX_LOOKS:
            del self.looks[_MAX_LOOKS // 2]
        self.looks.append(look)
        return look

    def wrote(self, records: tuple[RecordMeta, ...], leaf: str | None) -> None:
        """Its process's main thread wrote *records* in it; *leaf*: the last record of its fence. What does not go
        on from the last one is another lane's; where there is none yet, a message counts for more than control
        metadata. The header is nobody's parent."""
        for record in records:
            if record.type == "session" or record.id is None:
                continue
            last = self.leaf or leaf
            if last is None or record.parent == last or (leaf is None and record.type == "message"):
                self.leaf = record.id

    def take_back(self, tid: int) -> None:
        """What thread *tid* did last on the transcript, if it was a look, was the name lookup of an open: FUSE
        cannot tell the two when the lookup comes."""
        for index in range(len(self._tids) - 1, -1, -1):
            if self._tids[index] != tid:
                continue
            if self._shape[index] == LOOK:
                self._shape = self._shape[:index] + self._shape[index + 1 :]
                del self._tids[index]
                for place in range(len(self.looks) - 1, -1, -1):
                    if self.looks[place].tid == tid:
                        del self.looks[place]
                        break
            return
