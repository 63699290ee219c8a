"""The demo's gateway: a main thread that appends, a pool that locks and looks, as OpenClaw 2026.5 does it.

    python gateway.py SESSIONS_DIRECTORY TURNS REPORT

While a reply "streams" it has let go of the lock and remembers the transcript's fingerprint. Where that has
changed, OpenClaw ends the turn; this gateway writes a JSON line to REPORT (the transcript, and the span of
time in ns since the epoch in which it happened) and goes on, so that the demo can ask the guard who it was.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TextIO

import pi

SESSIONS = {
    "agent:main:feishu:direct:ou_demo": "5f0c6a52-1d5e-4b8f-9a53-0d3c2f6f7a11",
    "agent:main:telegram:direct:4242": "c0ffee00-9a1b-4c3d-8e5f-112233445566",
}
DELTAS = 4  # a short reply
DELTA_SECONDS = 0.12  # between two deltas: what makes the live log readable


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


class Turn:
    """One user message and its streamed reply on one transcript."""

    def __init__(self, path: str, pool: ThreadPoolExecutor, report: TextIO) -> None:
        self.path, self.pool, self.report = path, pool, report
        self.seen: pi.Fingerprint = None
        self.since = 0

    def look(self) -> pi.Fingerprint:
        return self.pool.submit(pi.fingerprint, self.path).result()

    def cycle(self) -> AbstractContextManager[None]:
        return pi.lock_cycle(self.path, lambda call: self.pool.submit(call).result())

    def remember(self) -> None:
        self.seen, self.since = self.look(), time.time_ns()

    def check(self) -> None:
        if self.look() != self.seen:
            line = {"path": os.path.basename(self.path), "since": self.since, "until": time.time_ns()}
            self.report.write(json.dumps(line) + "\n")
            self.report.flush()

    def run(self, number: int) -> None:
        with self.cycle():
            parent = pi.append(self.path, pi.message("user", f"question {number}", pi.leaf(self.path)))
            self.remember()
        for _ in range(DELTAS):
            time.sleep(DELTA_SECONDS)
            with self.cycle():
                self.check()
                self.remember()
        with self.cycle():
            self.check()
            pi.append(
                self.path,
                pi.message("assistant", f"answer {number}", parent, provider="demo", model="demo-1"),
            )
            self.remember()
        with self.cycle():
            self.check()
        with self.cycle():  # the delivery mirror: the same process, another thread, another kind of record
            mirror = pi.message(
                "assistant", f"answer {number}", pi.leaf(self.path), str(uuid.uuid4()),
                provider="openclaw", model="delivery-mirror",
            )  # fmt: skip
            self.pool.submit(pi.append, self.path, mirror).result()


def main() -> None:
    directory, turns = sys.argv[1], int(sys.argv[2])
    pi.name_thread("gateway")
    with (
        ThreadPoolExecutor(4, initializer=pi.name_thread, initargs=("gateway",)) as pool,
        open(sys.argv[3], "w") as report,
    ):
        for session in SESSIONS.values():
            pi.append(os.path.join(directory, session + ".jsonl"), pi.header(session))
        replace_registry(directory)
        for number in range(turns):
            for session in SESSIONS.values():
                Turn(os.path.join(directory, session + ".jsonl"), pool, report).run(number)
            replace_registry(directory)


if __name__ == "__main__":
    main()
