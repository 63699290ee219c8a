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
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import pyfuse3
import trio

from guardfs.mount.session import Session

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
    """Replaces `pyfuse3._wait_fuse_readable`, and never returns while the mount lasts: it has each request answered.

    greeting: libfuse reads what it is sent after each step of it; after the last one *session* is there. spare: does a
    few microseconds of work that waits. caught_up: what is to be told when there is something of it, and no request
    waits that the kernel may have sent before; *tell* is called with each.
    """

    def __init__(
        self,
        fd: int,
        dispatcher: _Detached,
        greeting: Iterator[None],
        spare: Callable[[], bool],
        caught_up: deque[tuple[int, bytes]],
        tell: Callable[[int, bytes], None],
    ) -> None:
        self._fd = fd
        self._dispatcher = dispatcher
        self._greeting = greeting
        self._poll = select.poll()
        self._spare = spare
        self._caught_up = caught_up
        self._tell = tell
        self._last_turn = 0
        self._misses: int | None = 0 if len(os.sched_getaffinity(0)) > 1 else None
        self.session: Session | None = None
        self.serving = trio.Event()
        self.stopping = False

    def install(self) -> None:
        """Make pyfuse3 wait here."""
        vars(pyfuse3)["_wait_fuse_readable"] = self.wait

    async def wait(self) -> bool:
        """Return True when libfuse has something of the greeting to read, False to end pyfuse3's loop: the mount is
        gone, or `stop` was called."""
        for _ in self._greeting:
            return True
        assert self.session is not None
        serve = self.session.serve
        self._poll.register(self._fd, select.POLLIN)
        self.serving.set()
        while True:
            if not self._soon():
                try:
                    await trio.lowlevel.wait_readable(self._fd)
                except trio.ClosedResourceError:
                    return False
                self._last_turn = time.monotonic_ns()
            if self.stopping or not serve():
                return False

    def _soon(self) -> bool:
        """Whether there is a request now, or within a burst."""
        if self._caught_up:
            count = len(self._caught_up)
            if not self._poll.poll(0):
                for _ in range(count):
                    self._tell(*self._caught_up.popleft())
        if self._dispatcher.detached or time.monotonic_ns() - self._last_turn >= TURN_NS:
            return False
        return self._spin() or bool(self._poll.poll(BURST_MS))

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
