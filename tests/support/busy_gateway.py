"""One process that streams replies on many sessions at once, as a gateway does; and one that writes to all of them.

    python -m tests.support.busy_gateway agent DIRECTORY SESSIONS SECONDS DELTAS_PER_SECOND
    python -m tests.support.busy_gateway foreign DIRECTORY SESSIONS SECONDS WRITES_PER_SECOND

Each prints one JSON object at its end. agent: lock cycles, their durations (ms: p50, p99, max), turns, deaths (checks
that found another fingerprint than the last look). foreign: the ids of what it wrote.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.agent import record

TURN_DELTAS = 40


def name(number: int) -> str:
    """The transcript of session *number*."""
    return f"0000000{number}-0000-4000-8000-00000000000{number}.jsonl"


class Session:
    """One session of the gateway."""

    def __init__(self, directory: Path, number: int, pool: ThreadPoolExecutor) -> None:
        self.path = os.path.join(directory, name(number))
        self.lock = f"{self.path}.lock"
        self.pool = pool
        self.number = number
        self.written = 0
        self.leaf: str | None = None
        self.seen: tuple[int, ...] | None = None
        self.delta = 0
        self.deaths = 0
        self.turns = 0
        self.durations: list[float] = []
        self.ids: list[str] = []
        with open(self.path, "ab", buffering=0) as file:
            file.write(b'{"type":"session","id":"s%d"}\n' % number)

    def _pool(self, work: Any, *args: Any) -> Any:
        return self.pool.submit(work, *args).result()

    def _take(self) -> None:
        descriptor = os.open(self.lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, b'{"pid":%d}' % os.getpid())
        os.close(descriptor)

    def _look(self) -> tuple[int, ...]:
        st = os.stat(self.path)
        return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)

    def _read(self) -> str | None:
        with open(self.path, "rb", buffering=0) as file:
            lines = file.read().splitlines()
        found = json.loads(lines[-1])
        return None if found["type"] == "session" else str(found["id"])

    def _append(self) -> None:
        self.written += 1
        new = f"{self.number:x}{self.written:07x}"
        with open(self.path, "ab", buffering=0) as file:
            file.write(record(new, self.leaf))
        self.leaf = new
        self.ids.append(new)

    def step(self, last: bool) -> None:
        """The next lock cycle of the session's turn; *last*: the turn ends with it."""
        begin = time.perf_counter()
        self._pool(self._take)
        if self.delta == 0:
            self._pool(self._read)
            self._pool(self._look)
            self.leaf = self._read()
            self._append()
            self.seen = self._pool(self._look)
        else:
            if self._pool(self._look) != self.seen:
                self.deaths += 1
                last = True
            elif not last:
                if self.delta == TURN_DELTAS - 2:
                    self._append()
                self.seen = self._pool(self._look)
        self._pool(os.unlink, self.lock)
        self.durations.append((time.perf_counter() - begin) * 1000)
        self.delta = 0 if last else self.delta + 1
        self.turns += last


def agent(directory: Path, sessions: int, seconds: float, rate: float) -> dict[str, Any]:
    """Streams on all sessions."""
    with ThreadPoolExecutor(4) as pool:
        busy = [Session(directory, number, pool) for number in range(sessions)]
        begin, due = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            for session in busy:
                session.step(last=session.delta >= TURN_DELTAS - 1)
            due += 1
            time.sleep(max(0.0, begin + due / rate - time.monotonic()))  # the rate that was asked for
        for session in busy:
            if session.delta:
                session.step(last=True)
        durations = sorted(duration for session in busy for duration in session.durations)
    return {
        "cycles": len(durations),
        "p50": durations[len(durations) // 2],
        "p99": durations[int(len(durations) * 0.99)],
        "max": durations[-1],
        "turns": sum(session.turns for session in busy),
        "deaths": sum(session.deaths for session in busy),
        "ids": {name(session.number): session.ids for session in busy},
    }


def foreign(directory: Path, sessions: int, seconds: float, rate: float) -> dict[str, Any]:
    """Appends to all sessions, each time behind the last record that it sees."""
    begin, due = time.monotonic(), 0
    ids: dict[str, list[str]] = {name(number): [] for number in range(sessions)}
    while time.monotonic() - begin < seconds:
        for number in range(sessions):
            path = directory / name(number)
            if not path.exists():
                continue
            last = json.loads(path.read_bytes().splitlines()[-1])
            new = f"f{number:x}{due:06x}"
            with path.open("ab", buffering=0) as file:
                file.write(record(new, None if last["type"] == "session" else last["id"]))
            ids[path.name].append(new)
        due += 1
        time.sleep(max(0.0, begin + due / rate - time.monotonic()))
    return {"ids": ids}


if __name__ == "__main__":
    what, where, *numbers = sys.argv[1:]
    act = {"agent": agent, "foreign": foreign}[what]
    print(json.dumps(act(Path(where), int(numbers[0]), float(numbers[1]), float(numbers[2]))))
