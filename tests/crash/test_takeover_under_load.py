"""A daemon killed again and again under load: nobody notices but the log."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from guardfs.audit.verify import verify
from tests.conftest import StartGuard
from tests.support.guard import ROOT, Guard, environment
from tests.support.machine import FULL
from tests.support.steady import SHARED
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.mount, pytest.mark.crash]

KILLS = 200 if FULL else 10


class Steady:
    """One process of `tests.support.steady`. done: steps that have returned; wrong: what it did not bear."""

    def __init__(self, name: str, directory: Path, worker: str, stop: Path) -> None:
        self.worker = worker
        self.done = 0
        self.wrong = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.steady", name, directory, worker, stop],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.done = int(line) + 1
            else:
                self.wrong = line.decode()

    def join(self) -> None:
        """Wait for its end."""
        self.process.wait(60)
        self.thread.join(60)
        assert self.process.stdout is not None and self.process.stderr is not None
        self.wrong = self.wrong or self.process.stderr.read().decode()
        self.process.stdout.close()
        self.process.stderr.close()


def numbers(path: Path) -> dict[str, list[int]]:
    """worker -> its numbers in *path*, in order; fails on a line that is not whole."""
    found: dict[str, list[int]] = {}
    for line in path.read_bytes().splitlines():
        record = json.loads(line)
        if "worker" in record:
            found.setdefault(record["worker"], []).append(record["number"])
    return found


def kill_and_wait(guard: Guard, times: int) -> None:
    """Kill the daemon, and wait until the next one serves."""
    os.kill(guard.daemon, signal.SIGKILL)
    status = wait_for(
        lambda: (found := guard.status())["daemon"]["restarts"] == times and found, "another daemon"
    )
    guard.daemon = status["daemon"]["pid"]
    assert not status["internal_errors"]["count"], guard.said()


@pytest.mark.parametrize("policy", ["record", "openclaw"])
def test_nobody_notices(new_guard: StartGuard, place: Path, policy: str) -> None:
    guard = new_guard("--policy", policy, "--max-deaths", "1000").start()
    guard.expected = ["the daemon ended with signal SIGKILL", r"\(signal SIGKILL\)"]
    (guard.directory / SHARED).write_bytes(b'{"type":"session","id":"s"}\n')
    stop, chance = place / "stop", random.Random(policy)
    device = os.stat(guard.directory).st_dev
    steady = [
        Steady(name, guard.directory, f"{name}-{number}", stop)
        for name, count in {"append": 2, "synced": 1, "cycle": 2, "juggle": 1, "read": 1}.items()
        for number in range(count)
    ]
    try:
        for times in range(1, KILLS // 2 + 1):
            before = [each.done for each in steady]
            wait_for(
                lambda before=before: all(  # type: ignore[misc]
                    each.done > count + 3 or each.wrong for each, count in zip(steady, before, strict=True)
                ),
                "everybody to get on",
            )
            assert not [each.wrong for each in steady if each.wrong]
            wait_for(lambda: chance.random() < 0.05, "a moment")
            kill_and_wait(guard, times)
    finally:
        stop.touch()
        for each in steady:
            each.join()
    assert [each.wrong for each in steady if each.wrong] == []
    assert os.stat(guard.directory).st_dev == device
    found: dict[str, list[int]] = {}
    for path in guard.directory.glob("*.jsonl"):
        found.update(numbers(path))
    for each in steady:
        if each.worker in found:
            assert found[each.worker] == list(range(each.done)), each.worker
    assert not (guard.directory / f"{SHARED}.lock").exists()
    assert sorted(os.listdir(guard.directory)) == sorted(p.name for p in guard.directory.glob("*.jsonl"))
    takeovers = guard.events(lambda event: event["op"] == "takeover")
    assert [event["number"] for event in takeovers] == list(range(1, KILLS // 2 + 1))
    assert not [event for event in takeovers if "lost" in event], takeovers
    guard.stop()
    report = verify(str(guard.audit), str(guard.state / "audit.head"))
    assert report.ok and all(problem.kind == "torn" for problem in report.problems), report
