"""Looks at a path some hundred times a second, as a process of its own, and tells how long each call took.

python -m tests.support.prober PATH       until its input ends; then a JSON list of [wall clock s, us] on its output
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.guard import ROOT, environment

PAUSE = 0.002


@dataclass
class Probed:
    """pid: whose calls they are. calls: when each began (wall clock, s), and how long it took (us); filled in at the
    end."""

    pid: int = 0
    calls: list[tuple[float, float]] = field(default_factory=list)

    def slowest(self, since: float, until: float) -> float:
        """us of the slowest call that began in that time; 0 if there was none."""
        return max((us for began, us in self.calls if since <= began <= until), default=0.0)


@contextlib.contextmanager
def probing(path: Path) -> Iterator[Probed]:
    """Calls are made for as long as the block runs."""
    found = Probed()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.prober", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        found.pid = process.pid
        try:
            yield found
        finally:
            said, _ = process.communicate()
    found.calls += [(began, us) for began, us in json.loads(said)]


def main() -> None:
    """Look, until told to end."""
    path, calls = sys.argv[1], []
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        began, start = time.time(), time.perf_counter_ns()
        os.stat(path)
        calls.append((began, (time.perf_counter_ns() - start) / 1000))
    print(json.dumps(calls))


if __name__ == "__main__":
    main()
