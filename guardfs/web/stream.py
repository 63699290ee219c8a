"""Server-sent events: one stream a reader, of what is new since it was last told something.

Nothing is kept for a reader but a `Cursor`: what it is sent is made when the last message has left, so that one who
reads slowly gets fewer and later messages, never a queue. The id of a message says what its reader knows then; a
browser that reconnects sends it back (Last-Event-ID) and is told what came since, or everything, where that is not
known any more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import trio
from starlette.types import Receive, Scope, Send

from guardfs.audit.levels import CHANGES, NOTICES, QUIET
from guardfs.audit.select import Filter
from guardfs.web.feed import Feed
from guardfs.web.live import Cursor
from guardfs.web.tail import INCIDENTS

PAUSE = 0.25
"""Seconds between two messages: an eye takes it for live, and a browser has time to draw."""

LOOK = 0.1
"""Seconds between two looks while nothing is new."""

ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that nobody between takes the connection for dead."""

MAX_TEXT = 300

_VERDICTS = frozenset(("allow", "stage", "wait", "deny"))
_ID = re.compile(r"([0-9a-f]{12})\.(\d{1,15})")
_FRESH = frozenset(("tail", "picture"))


class Wanted(NamedTuple):
    """What a reader asked for. watched: the session that is drawn. id: what it knows; fresh: what it does not know all
    the same."""

    watched: str
    filter: Filter
    id: str
    fresh: frozenset[str]


def wanted(query: Mapping[str, str], last: str | None) -> Wanted:
    """Reads what the page asks for. last: Last-Event-ID, where the browser reconnects. ValueError: the reason."""
    for key, value in query.items():
        if len(value) > MAX_TEXT:
            raise ValueError(f"{key}: longer than {MAX_TEXT} characters")
    verdict, op = query.get("verdict", ""), query.get("op", "")
    if verdict and verdict not in _VERDICTS:
        raise ValueError(f"verdict: one of {', '.join(sorted(_VERDICTS))}")
    if op and op not in CHANGES | QUIET | NOTICES:
        raise ValueError("op: no such operation")
    ops = INCIDENTS if query.get("incidents") == "1" else frozenset((op,) if op else ())
    chosen = Filter(
        lane=query.get("lane") or None,
        session=query.get("within") or None,
        verdict=verdict or None,
        ops=ops,
    )
    fresh = frozenset() if last else frozenset(query.get("fresh", "").split(",")) & _FRESH
    return Wanted(query.get("session", ""), chosen, last or query.get("from", ""), fresh)


class Stream:
    """An ASGI application: the answer to one reader, until it goes away or the server closes. names: of all guards,
    now, with their directories."""

    def __init__(
        self,
        feed: Feed,
        asked: Wanted,
        names: Callable[[], list[list[str]]],
        closing: trio.Event,
        headers: Mapping[str, str],
    ) -> None:
        self._feed, self._asked, self._names, self._headers = feed, asked, names, headers
        self._closing = closing
        self._told_names: list[list[str]] = []
        self._told = -1
        self._epoch = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = [(name.lower().encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await _body(send, b"retry: 1000\n\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, send)
            nursery.start_soon(self._until_closing, nursery.cancel_scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()
        if self._closing.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_closing(self, scope: trio.CancelScope) -> None:
        await self._closing.wait()
        scope.cancel()

    async def _send(self, send: Send) -> None:
        cursor, last = None, trio.current_time()
        while True:
            await self._feed.refresh()
            live = self._feed.live
            if cursor is None or self._epoch != self._feed.epoch:
                cursor = self._cursor(first=cursor is None)
            found = live.since(cursor, self._asked.watched, self._asked.filter) | self._about()
            stamp = live.stamp
            drawn = cursor.picture >= 0 or "picture" in found
            cursor = Cursor(stamp, stamp, stamp if drawn else -1)
            if found:
                found |= {"now": time.time_ns() // 1000, "totals": live.totals()}
                data = msgspec.json.encode(found)
                await _body(send, b"id: %s.%d\ndata: %s\n\n" % (self._epoch.encode(), stamp, data))
                last = trio.current_time()
                await trio.sleep(PAUSE)
            else:
                if trio.current_time() - last > ALIVE:
                    await _body(send, b": alive\n\n")
                    last = trio.current_time()
                await trio.sleep(LOOK)

    def _cursor(self, first: bool) -> Cursor:
        """Where to go on; from the beginning if what the reader knows is of another epoch."""
        self._epoch = self._feed.epoch
        known = _ID.fullmatch(self._asked.id) if first else None
        if known is None or known[1] != self._epoch or int(known[2]) > self._feed.live.stamp:
            return Cursor()
        stamp = int(known[2])
        fresh = dict.fromkeys(self._asked.fresh, -1)
        return Cursor(stamp, stamp, stamp)._replace(**fresh)

    def _about(self) -> dict[str, Any]:
        """What is said of guards, where that has changed."""
        found: dict[str, Any] = {}
        names = self._names()
        if names != self._told_names:
            found["guards"], self._told_names = names, names
        if self._told != self._feed.told:
            found["guard"], self._told = self._feed.guard, self._feed.told
        return found


async def _body(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
