"""Waiting for the next request.

pyfuse3 waits for each request through trio, which costs more than most requests do. Requests come in bursts
(a turn of a gateway is hundreds of them, a fraction of a millisecond apart), so after a request the daemon
first waits for the next one directly, in poll(2), for `BURST_MS`; only then does it go to sleep in trio. It
never does so while a detached request is under way, and it lets trio have a turn every `TURN_NS` of a long
burst, so that signals, timers and finished threads wait for milliseconds at most.

That wait begins with `SPINS` questions without sleeping: to wake a sleeping daemon takes longer than to
answer a request. Meanwhile it does work that waits (*spare*: events for the log). Spinning is given up while
it does not pay, and where the process has one processor only; it lets others run that want to.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Protocol

import pyfuse3
import trio

BURST_MS = 2
TURN_NS = 5_000_000
SPINS = 400
"""Questions without sleeping: some 250 us, so that a caller on another processor has the time to wake up,
see its answer, and ask again."""
_YIELD = 8
"""Questions after which whoever else wants this processor gets it."""
_SPIN_MISSES = 8
"""After so many spins in vain only every sixteenth wait begins with one, until one pays again."""


class _Detached(Protocol):
    detached: int


class RequestLoop:
    """Replaces `pyfuse3._wait_fuse_readable`.

    fd: the descriptor that libfuse reads. At first a socket with the made-up INIT; once that is answered,
    *swap* puts the real /dev/fuse in its place, under the same number. spare: does a few microseconds of
    work that waits.
    """

    def __init__(
        self, fd: int, dispatcher: _Detached, swap: Callable[[], None], spare: Callable[[], bool]
    ) -> None:
        self._fd = fd
        self._dispatcher = dispatcher
        self._swap: Callable[[], None] | None = swap
        self._started = False
        self._poll = select.poll()
        self._spare = spare
        self._last_turn = 0
        self._misses: int | None = 0 if len(os.sched_getaffinity(0)) > 1 else None
        self.serving = trio.Event()
        self.stopping = False

    def install(self) -> None:
        """Make pyfuse3 wait here."""
        vars(pyfuse3)["_wait_fuse_readable"] = self.wait

    async def wait(self) -> bool:
        """Return True when a request can be read, False to end the loop."""
        if self._swap is not None:
            if not self._started:
                self._started = True  # the made-up INIT lies ready
                return True
            self._swap()
            self._swap = None
            self._poll.register(self._fd, select.POLLIN)
            self.serving.set()
        if self.stopping:
            return False
        if not self._dispatcher.detached:
            clock = time.monotonic_ns()
            if clock - self._last_turn < TURN_NS and (self._spin() or self._poll.poll(BURST_MS)):
                return not self.stopping
        while not self.stopping:
            try:
                await trio.lowlevel.wait_readable(self._fd)
            except trio.ClosedResourceError:
                return False
            self._last_turn = time.monotonic_ns()
            # a request that was interrupted before it could be read leaves nothing to read, and the read
            # would block
            if self._poll.poll(0):
                return not self.stopping
        return False

    def _spin(self) -> bool:
        """Ask for the next request over and over; whether there is one."""
        poll = self._poll.poll
        if poll(0):
            return True
        if self._misses is None:
            return False
        if self._misses > _SPIN_MISSES and self._misses & 15:
            self._misses += 1
            return False
        spare = self._spare
        for asked in range(SPINS):
            if poll(0):
                self._misses = 0
                return True
            if asked % _YIELD == 0:
                os.sched_yield()
            spare()
        self._misses += 1
        return False

    def stop(self) -> None:
        """End the loop after the request at hand."""
        self.stopping = True
        trio.lowlevel.notify_closing(self._fd)
