"""The demo's gateway: a main thread that appends, a pool that locks and looks, as OpenClaw 2026.5.20 does it.

    python gateway.py SESSIONS_DIRECTORY LOG

While a reply "streams" it has let go of the lock and remembers the transcript's fingerprint. Where that has changed, it
ends the turn and says so in LOG, in OpenClaw's words: the file is named, and nobody else. The next turn follows. It
answers on all its sessions at once, until SIGTERM; then the replies under way are the last.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TextIO, TypeVar

import pi

T = TypeVar("T")

SESSIONS = {
    "agent:main:feishu:direct:ou_demo": "5f0c6a52-1d5e-4b8f-9a53-0d3c2f6f7a11",
    "agent:main:telegram:direct:4242": "c0ffee00-9a1b-4c3d-8e5f-112233445566",
}
DELTAS = 6  # a short reply
DELTA_SECONDS = 0.12  # between two deltas: what makes the live log readable
ERROR = "EmbeddedAttemptSessionTakeoverError: session file changed while embedded prompt lock was released"


def replace_registry(directory: str) -> None:
    """Write sessions.json the way the gateway does: whole, to a temporary name, then rename."""
    temporary = os.path.join(directory, f".fs-safe-replace.{os.getpid()}.{uuid.uuid4()}.tmp")
    entries = {
        key: {"sessionId": session, "updatedAt": time.time_ns() // 1_000_000}
        for key, session in SESSIONS.items()
    }
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, json.dumps(entries, indent=2).encode())
    os.close(fd)
    os.rename(temporary, os.path.join(directory, "sessions.json"))


class TurnLost(Exception):  # noqa: N818  (it is no error of this program)
    """The transcript is not what the turn remembers."""


class Turn:
    """One user message and its streamed reply on one transcript."""

    def __init__(self, path: str, pool: ThreadPoolExecutor) -> None:
        self.path, self._pool = path, pool
        self.begun = time.monotonic()
        self._seen: pi.Fingerprint = None
        self._leaf: str | None = None

    def run(self, name: str) -> Iterator[None]:
        """The turn, step by step: a step for each delta of the reply. *name* is said in each of its messages."""
        with self._cycle():
            self._leaf = str(self._on_pool(lambda: pi.read(self.path))[-1]["id"])
            self._remember()
            self._append(pi.message("user", f"question {name}", self._leaf))
            self._remember()
        for _ in range(DELTAS):
            yield
            with self._cycle():
                self._check()
                self._remember()
        with self._cycle():
            self._check()
            answer = pi.message("assistant", f"answer {name}", self._leaf, provider="demo", model="demo-1")
            self._append(answer)
            self._remember()
        with self._cycle():
            self._check()
        with (
            self._cycle()
        ):  # the delivery mirror: the same process, another line of work, another kind of record
            self._on_pool(lambda: self._deliver(name))

    def _append(self, record: dict[str, Any]) -> None:
        """The main thread writes, and looks."""
        self._leaf = pi.append(self.path, record)
        pi.fingerprint(self.path)

    def _remember(self) -> None:
        self._seen = self._on_pool(lambda: pi.fingerprint(self.path))

    def _check(self) -> None:
        """Whether the transcript is what it was. What has been appended is forgiven if it is an assistant's."""
        before, now = self._seen, self._on_pool(lambda: pi.fingerprint(self.path))
        if now == before:
            return
        if before is None or now is None or before[:2] != now[:2] or now[2] <= before[2]:
            raise TurnLost
        came = self._on_pool(lambda: pi.read(self.path, before[2]))
        if any(record.get("message", {}).get("role") != "assistant" for record in came):
            raise TurnLost

    def _deliver(self, name: str) -> None:
        pi.fingerprint(self.path)
        pi.fingerprint(self.path)
        last = pi.leaf(self.path)
        mirror = pi.message(
            "assistant",
            f"answer {name}",
            last,
            str(uuid.uuid4()),
            provider="openclaw",
            model="delivery-mirror",
        )
        pi.append(self.path, mirror)

    def _cycle(self) -> AbstractContextManager[None]:
        return pi.lock_cycle(self.path, self._on_pool)

    def _on_pool(self, call: Callable[[], T]) -> T:
        return self._pool.submit(call).result()


class Session:
    """One conversation: a turn follows the other."""

    def __init__(self, key: str, path: str, pool: ThreadPoolExecutor, log: TextIO) -> None:
        self._key, self._path, self._pool, self._log = key, path, pool, log
        self._number = 0
        self._turn: Turn | None = None
        self._steps: Iterator[None] = iter(())

    def step(self, more: bool) -> bool:
        """The next step of the turn, or, if there is to be *more*, a new turn. False: there is nothing to do."""
        if self._turn is None:
            if not more:
                return False
            self._turn = Turn(self._path, self._pool)
            self._steps = self._turn.run(str(self._number))
            self._number += 1
        try:
            next(self._steps)
        except StopIteration:
            self._turn = None
        except TurnLost:
            self._complain(self._turn)
            self._turn = None
        return True

    def _complain(self, turn: Turn) -> None:
        ms = round((time.monotonic() - turn.begun) * 1000)
        for lane in ("main", f"session:{self._key}"):
            self._log.write(
                f'{pi.now()} [diagnostic] lane task error: lane={lane} durationMs={ms} error="{ERROR}: {self._path}"\n'
            )
        self._log.flush()


def main() -> None:
    directory, ending = sys.argv[1], False

    def end(number: int, frame: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    pi.name_thread("gateway")
    with (
        ThreadPoolExecutor(4, initializer=pi.name_thread, initargs=("gateway",)) as pool,
        open(sys.argv[2], "w", encoding="utf-8") as log,
    ):
        sessions = []
        for key, session in SESSIONS.items():
            path = os.path.join(directory, session + ".jsonl")
            pi.append(path, pi.header(session))
            sessions.append(Session(key, path, pool, log))
        replace_registry(directory)
        under_way = sessions
        while under_way:
            under_way = [session for session in sessions if session.step(not ending)]
            time.sleep(DELTA_SECONDS)
        replace_registry(directory)


if __name__ == "__main__":
    main()
