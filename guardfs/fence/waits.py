"""Which callers may be held until a fence closes. Pure.

Never a thread of the owner's own process, which may be the one that the owner waits for; never one that has the lock
file, which the owner needs to go on; never more than the policy's share of a process's threads, for it may have but
few; and never so many that the guard itself runs short of tasks.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from guardfs.fence.events import ProcessKey

MAX_HELD = 64
"""Callers held at a time, of all processes."""


class Waiter(NamedTuple):
    """One caller. fenced: somebody relies on the transcript; own: its own process does, or did. locks: its process has
    the lock file. share: threads of its process that may be held at a time."""

    process: ProcessKey
    fenced: bool
    own: bool
    locks: bool
    share: int


class Waits:
    """Who is held now."""

    def __init__(self) -> None:
        self._of: Counter[ProcessKey] = Counter()

    @property
    def held(self) -> int:
        """Their number."""
        return self._of.total()

    def admits(self, waiter: Waiter) -> bool:
        """Whether *waiter* may be held; if not, what it wants to write is staged."""
        if not waiter.fenced or waiter.own or waiter.locks:
            return False
        return self._of[waiter.process] < waiter.share and self.held < MAX_HELD

    def entered(self, process: ProcessKey) -> None:
        """A thread of *process* is held."""
        self._of[process] += 1

    def left(self, process: ProcessKey) -> None:
        """It is not any more."""
        self._of[process] -= 1
        if self._of[process] <= 0:
            del self._of[process]
