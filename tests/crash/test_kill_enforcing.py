"""An enforcing daemon killed at every step of staging and rebasing: every record whose write returned is there, once,
and reachable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import watched
from tests.support.agent import NAME
from tests.support.faulty import DAEMON
from tests.support.guard import ROOT, Guard, environment
from tests.support.kill_stories import GONE, START, STORIES
from tests.support.killed_daemon import KILL
from tests.support.lab import check, model
from tests.support.machine import FULL
from tests.support.mounts import clear_mounts
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.mount, pytest.mark.crash]

KILLS = 1000 // len(STORIES) if FULL else 100 // len(STORIES)
"""Of each story. A story has fewer steps than that: in the long run it is killed at each several times."""

POLICY = ROOT / "policy/openclaw.toml"


class Lives:
    """One directory, one state, and guard after guard over them, each killed in its time."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directory = place / "sessions"
        self.directory.mkdir()
        self.switch = place / "kill"
        self.steps = place / "kill.steps"
        self.policy = place / "policy.toml"
        self.policy.write_text(POLICY.read_text().replace('linger = "5s"', 'linger = "0s"'))
        self.guards: list[Guard] = []
        self.said = place / "said"
        self._id = 0
        self.killed: int | str = 0

    def at(self, count: int | str) -> str:
        """From now on the daemon ends at its *count*th step, or the first one of that name; what the list of steps
        calls this time."""
        self._id += 1
        self.killed = count or self.killed
        new = self.switch.with_suffix(".new")
        new.write_text(f"{self._id} {count}")
        new.rename(self.switch)
        return str(self._id)

    def names(self, which: str) -> list[str]:
        """The steps of one time."""
        found = [line.split() for line in self.steps.read_text().splitlines()] if self.steps.exists() else []
        return [name for each, name in found if each == which]

    def begin(self) -> Guard:
        """The next guard; what the one before has left is recovered."""
        guard = Guard(
            self.directory,
            self.place / f"beside-{len(self.guards)}",
            "--policy",
            str(self.policy),
            "--mode",
            "enforce",
            "--max-deaths",
            "1",
            "--on-failure",
            "closed",  # so that what is left is the next mount's to recover
            command=[sys.executable, "-m", "tests.support.faulty"],
            env={DAEMON: "tests.support.killed_daemon", KILL: str(self.switch)},
        )
        guard.options[guard.options.index("--state") + 1] = str(self.place / "state")
        guard.expected = [
            "the daemon ended with signal SIGKILL",
            r"\(signal SIGKILL\)",
            "it is kept as",
            "cannot be merged",
        ]
        self.guards.append(guard)
        return guard.start()

    def tell(self, story: str) -> int:
        """Tell a story on a fresh transcript; its exit status."""
        for path in self.directory.iterdir():
            path.unlink()
        self.said.unlink(missing_ok=True)
        (self.directory / NAME).write_bytes(START)
        command = [
            sys.executable,
            "-m",
            "tests.support.kill_stories",
            story,
            str(self.directory),
            str(self.said),
        ]
        done = subprocess.run(command, env=environment(), cwd="/", capture_output=True, check=False)
        assert done.returncode in (0, GONE), done.stderr.decode()
        return done.returncode

    def end(self, guard: Guard) -> None:
        """Wait until it is dead, or has nothing left to do; then it is killed all the same."""
        wait_for(lambda: not alive(guard) or idle(guard), "the guard to be done")
        if alive(guard):
            os.kill(guard.daemon, signal.SIGKILL)
        assert guard.process is not None
        assert guard.process.wait(60) == 1
        clear_mounts(self.directory)

    def check(self) -> None:
        """All is there, and nothing is left of how it came there."""
        files = {path.name: path.read_bytes() for path in self.directory.iterdir() if path.suffix != ".lock"}
        assert list((self.place / "state").glob("branches/*")) == []
        files.pop("sync-tool", None)
        try:
            found = model(self.said, START)
            check({name: whole_lines(data, found.maybe) for name, data in files.items()}, found, NAME)
        except AssertionError as error:
            raise AssertionError(f"killed at step {self.killed}: {self.names(str(self._id - 1))}") from error


def whole_lines(data: bytes, maybe: set[str]) -> bytes:
    """*data* without the beginning of a long record whose write was cut short; such a record is one of *maybe*."""
    kept = []
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"}\n"):
            name = line.partition(b'"id": "')[2].partition(b'"')[0].decode()
            assert name in maybe, line[:100]
        else:
            kept.append(line)
    return b"".join(kept)


def alive(guard: Guard) -> bool:
    try:
        return "Z" not in Path(f"/proc/{guard.daemon}/stat").read_text().rpartition(")")[2].split()[:1]
    except OSError:
        return False


def idle(guard: Guard) -> bool:
    try:
        branches = guard.status()["branches"]
    except OSError:
        return False
    return not branches["open"] and not branches["ghosts"]


@pytest.fixture
def lives(place: Path) -> Iterator[Lives]:
    made = Lives(place)
    with watched(made.guards, 3600):
        yield made
        for guard in made.guards:
            guard.destroy()


@pytest.mark.parametrize("story", STORIES)
def test_killed_at_every_step(lives: Lives, story: str) -> None:
    whole = lives.at(0)
    guard = lives.begin()
    assert lives.tell(story) == 0
    lives.end(guard)
    names = lives.names(whole)
    assert names, "nothing was staged"
    wanted = (
        [1 + number % len(names) for number in range(KILLS)]
        if len(names) <= KILLS or FULL
        else [1 + number * len(names) // KILLS for number in range(KILLS)]
    )
    if not FULL:
        wanted = sorted(set(wanted))
    for count in wanted:
        lives.at(0)
        guard = lives.begin()
        lives.check()  # what the one before has left
        lives.at(count)
        lives.tell(story)
        lives.end(guard)
    lives.at(0)
    guard = lives.begin()
    lives.check()
    lives.end(guard)
