"""A log as a busy guard writes it, without a guard: as many sessions, and as many events a second, as are asked for.

    python -m tests.support.live_log FILE SESSIONS RATE SECONDS

Each session is one turn after another: fence, lock cycles, records, now and then a script that appends (staged, rebased
afterwards) and an incident. First all sessions at once, then RATE events a second for SECONDS.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Event = dict[str, Any]

NODE = {"tgid": 4102, "exe": "/usr/bin/node", "uid": 1000, "start": 5}
GATEWAY = {**NODE, "tid": 4121, "main": False, "comm": "libuv-worker"}
MAIN = {**GATEWAY, "tid": 4102, "main": True, "comm": "openclaw"}
CRON = {"tid": 7001, "tgid": 7001, "main": True, "comm": "cron.sh", "exe": "/bin/dash", "uid": 0, "start": 9}


def stamp(us: int) -> str:
    """us since the epoch, as events write a time."""
    return f"{datetime.fromtimestamp(us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{us % 1_000_000:06d}Z"


class Log:
    """Makes the events of *sessions*, in order of time. names: what session keys look like."""

    def __init__(self, sessions: int, name: str = "agent:main:telegram:direct:{:04d}", seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._seq = self._token = self._branch = 0
        self._turns = [
            self._session(f"{n:08x}-0000-4000-8000-{n:012x}", name.format(n)) for n in range(sessions)
        ]

    def start(self, us: int) -> Event:
        """What a guard says first."""
        return self._event(us, {"op": "start", "mountpoint": "/srv/sessions", "version": "0.1.0"})

    def next(self, us: int, session: int | None = None) -> Event:
        """The next thing that happens, in any session."""
        chosen = self._random.randrange(len(self._turns)) if session is None else session
        return self._event(us, next(self._turns[chosen])(us))

    def _event(self, us: int, fields: Event) -> Event:
        self._seq += 1
        return {"v": 1, "seq": self._seq, "prev": "0" * 64, "time": stamp(us), **fields}

    def _session(self, file: str, key: str) -> Iterator[Any]:
        about = {"path": f"{file}.jsonl", "session": key}

        def operation(op: str, lane: str, writer: Event, **more: Any) -> Any:
            facts = {
                "op": op,
                **about,
                "lane": lane,
                "writer": writer,
                "rule": "everything else",
                "verdict": "allow",
            }
            return lambda us: {**facts, "errno": 0, "us": 30, **more}

        lock = {"path": f"{file}.jsonl.lock"}
        while True:
            self._token += 1
            token = self._token
            fence: Event = {"token": token, "owner": "gateway", "process": {"tgid": 4102, "start": 5}}
            yield operation("create", "gateway", GATEWAY, **lock)
            yield operation("write", "gateway:run", MAIN, bytes=300, append=True, **{"class": "append"})
            yield operation("unlink", "gateway", GATEWAY, **lock)

            def opened(us: int, fence: Event = fence) -> Event:
                fence["opened"] = stamp(us)
                return {"op": "fence", "change": "opened", **about, **fence, "baseline": None}

            yield opened
            staged = self._random.random() < 0.3
            for delta in range(self._random.randrange(3, 12)):
                yield operation("create", "gateway", GATEWAY, **lock)
                yield operation("look", "gateway", GATEWAY)
                yield operation("unlink", "gateway", GATEWAY, **lock)
                if delta == 2 and staged:
                    yield from self._staged(about, fence, operation)
            if staged:
                yield lambda us, fence=fence: self._saved(us, about, fence)
            yield lambda us, fence=fence: {
                "op": "fence", "change": "closed", **about, **fence, "reason": "closed", "lasted_ms": 1
            }  # fmt: skip
            if staged:
                branch = self._branch
                yield lambda us, branch=branch: {
                    "op": "branch", "change": "rebased", **about, "branch": branch, "lane": "cron",
                    "result": "appended", "bytes": 104, "records": 1,
                }  # fmt: skip

    def _staged(self, about: Event, fence: Event, operation: Any) -> Iterator[Any]:
        self._branch += 1
        branch = self._branch
        yield lambda us: {
            "op": "branch",
            "change": "begun",
            **about,
            "branch": branch,
            "lane": "cron",
            "base": 300,
        }
        rule, mark = "other lanes wait their turn on a branch", {"token": fence["token"], "owner": "gateway"}
        yield operation(
            "write", "cron", CRON, bytes=104, append=True, branch=branch, verdict="stage", rule=rule,
            fence={**mark, "relation": "other"}, **{"class": "append"},
        )  # fmt: skip

    def _saved(self, us: int, about: Event, fence: Event) -> Event:
        lost = self._random.random() < 0.1
        culprit = {
            "time": stamp(us - 1000),
            "change": "append",
            "by": {"lane": "cron", "tid": 7001, "tgid": 7001},
        }
        return {
            "op": "incident", **about, **fence, "outcome": "lost" if lost else "saved", "kind": "lane",
            "culprit": culprit, "changes": [culprit], "count": 1, "after_ms": 10.0, "before_ms": 1.0,
        }  # fmt: skip


def write(path: str, sessions: int, rate: float, seconds: float) -> None:
    """Writes the log, live."""
    log = Log(sessions)
    with open(path, "ab", buffering=0) as file:

        def put(events: list[Event]) -> None:
            file.write(b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in events))

        now = time.time_ns() // 1000
        put([log.start(now), *(log.next(now, n) for n in range(sessions) for _ in range(5))])
        begin, done = time.monotonic(), 0
        while (passed := time.monotonic() - begin) < seconds:
            due = int(passed * rate) - done
            put([log.next(time.time_ns() // 1000) for _ in range(due)])
            done += due
            time.sleep(0.02)


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
