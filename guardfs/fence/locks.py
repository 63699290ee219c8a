"""Who holds the lock file of which transcript, by what the mount has seen. Pure.

A lock that is there is held: whether its holder still lives is for the agent to find out. The holder is the process
that created the lock, whatever the file says; only of locks that were there before the mount the file is believed.
"""

from __future__ import annotations

from guardfs.fence.lockfile import LockHolder
from guardfs.policy.model import LockRelation

MAX_LOCKS = 100_000
"""Locks that are remembered; beyond, the oldest is forgotten, and its transcript counts as free."""

_NOBODY = 0
_ANY_START = -1


class LockTable:
    """Transcript (raw path below the mount) -> holder. For one thread.

    A process is *tgid* in the guard's pid namespace and *start* in clock ticks after boot; a tgid of 0 is one that
    the guard cannot see, and never the same as another.
    """

    def __init__(self, limit: int = MAX_LOCKS) -> None:
        self._limit = limit
        self._holders: dict[bytes, tuple[int, int]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._holders)

    def created(self, transcript: bytes, tgid: int, start: int) -> None:
        """A process has made the lock file of *transcript*, or put one in its place."""
        holders = self._holders
        holders.pop(transcript, None)
        holders[transcript] = (tgid, start)
        if len(holders) > self._limit:
            del holders[next(iter(holders))]

    def removed(self, transcript: bytes) -> None:
        """The lock file of *transcript* is gone, whoever removed it."""
        self._holders.pop(transcript, None)

    def renamed(self, old: bytes, new: bytes) -> None:
        """The lock file of *old* is now that of *new*, in place of what was there; its holder stays."""
        holder = self._holders.pop(old, None)
        if holder is None:
            self._holders.pop(new, None)
        else:
            self.created(new, *holder)

    def seed(self, transcript: bytes, holder: LockHolder) -> None:
        """*transcript* has a lock file since before the mount, which names *holder*; what the mount saw comes first.

        A holder without a start time is taken for whichever process has its id. One that names an id of another pid
        namespace counts as another process.
        """
        if transcript not in self._holders:
            start = _ANY_START if holder.starttime is None else holder.starttime
            self.created(transcript, holder.pid or _NOBODY, start)

    def relation(self, transcript: bytes, tgid: int, start: int) -> LockRelation:
        """Who holds the lock of *transcript*, as a thread of this process sees it."""
        holder = self._holders.get(transcript)
        if holder is None:
            return "free"
        if holder[0] == tgid != _NOBODY and holder[1] in (start, _ANY_START):
            return "own"
        return "other"
