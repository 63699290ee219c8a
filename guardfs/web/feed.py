"""Keeps the live page's view of one guard up to date: reads its log and asks for its status, for all readers together.

There is no task that does so. Whoever is about to be told something asks for that first, and one at a time looks; so
nothing is done while nobody watches, and a log that was left alone for long is begun anew, from its end.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import trio

from guardfs.audit.follow import Follower
from guardfs.audit.read import events_backward
from guardfs.errors import GuardError
from guardfs.report.values import micros
from guardfs.serve.guards import Guard
from guardfs.web.about import about
from guardfs.web.live import WINDOW, Live

EVERY = 0.1
"""Seconds between two looks at the log, whoever asks."""

STATUS_EVERY = 1.0

ALONE = 10.0
"""Seconds without a reader after which the log is begun anew."""

BACK = 20_000
"""Events before the end that a reader is shown; one second's work."""

AT_ONCE = 200
"""Events taken in before others have their turn: some 10 ms."""


class Feed:
    """live: the state of the log; begun anew it has another epoch. guard: what is said of the guard itself, told: a
    number that grows when that changes."""

    def __init__(self, guard: Guard) -> None:
        self.of = guard
        self.live = Live()
        self.epoch = _epoch()
        self.guard: dict[str, Any] = {}
        self.told = 0
        self._status: Mapping[str, Any] = {}
        self._unread = ""
        self._path = ""
        self._lock = trio.Lock()
        self._follower: Follower | None = None
        self._waiting: deque[dict[str, Any]] = deque()
        self._looked = self._asked = -1e9
        self._skip = 0

    async def refresh(self) -> None:
        """Returns when all that is in the log is in `live`, as of a moment ago."""
        if trio.current_time() - self._looked < EVERY:
            return
        async with self._lock:
            if trio.current_time() - self._looked < EVERY:
                return
            alone = trio.current_time() - self._looked > ALONE
            if self._follower is None or alone or self.of.audit != self._path:
                await self._begin()
            await self._look()
            self._looked = trio.current_time()

    def close(self) -> None:
        """Lets go of the log; the next look begins anew."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    async def _begin(self) -> None:
        self.close()
        self.live, self.epoch = Live(), _epoch()
        self._waiting.clear()
        await self._ask()  # the guard itself knows best which log it writes
        self._path = self.of.audit or ""
        follower, events, self._unread = await trio.to_thread.run_sync(_recent, self._path)
        self._follower = follower
        self._waiting.extend(events)
        self._skip = max((seq for each in events if isinstance(seq := each.get("seq"), int)), default=0)
        await self._take()
        self.live.adopt(self._status, time.time_ns() // 1000)
        self._say()

    async def _look(self) -> None:
        assert self._follower is not None
        lines = await trio.to_thread.run_sync(self._follower.poll)
        events = [line.event for line in lines if line.event is not None]
        if self._skip:  # came between the opening of the log's end and the reading of what stood before it
            events = [each for each in events if not 0 < _seq(each) <= self._skip]
            self._skip = 0
        self._waiting.extend(events)
        if events:
            self._unread = ""
        await self._take()
        if trio.current_time() - self._asked > STATUS_EVERY:
            await self._ask()
            self._say()
            self.live.correct(self._status, time.time_ns() // 1000)
            self.live.trim(time.time_ns() // 1000)

    async def _take(self) -> None:
        """Takes in what waits. Whoever asked for it may go away at any await: the next one goes on."""
        while self._waiting:
            for _ in range(min(AT_ONCE, len(self._waiting))):
                self.live.feed(self._waiting.popleft())
            await trio.lowlevel.checkpoint()

    async def _ask(self) -> None:
        self._status = await self.of.status() or {}
        self._asked = trio.current_time()

    def _say(self) -> None:
        found = about(self._status, self.of.trouble or "", self._unread)
        if found != self.guard:
            self.guard = found
            self.told += 1


def _recent(path: str) -> tuple[Follower, list[dict[str, Any]], str]:
    """A follower at the log's end, what stands before it in the window, oldest first, and why that cannot be read."""
    follower = Follower(path)
    if not path:
        return follower, [], "nobody has said yet where its log is"
    found: list[dict[str, Any]] = []
    since: int | None = None
    try:
        for line in events_backward(path):
            if line.event is None:
                continue
            found.append(line.event)
            when = micros(line.event.get("time"))
            since = when - WINDOW if since is None and when is not None else since
            if len(found) == BACK or (when is not None and since is not None and when < since):
                break
    except GuardError as error:
        return follower, [], str(error)
    except OSError as error:
        return follower, [], f"{path}: {error.strerror}"
    found.reverse()
    return follower, found, ""


def _seq(event: Mapping[str, Any]) -> int:
    seq = event.get("seq")
    return seq if isinstance(seq, int) else 0


def _epoch() -> str:
    return os.urandom(6).hex()
