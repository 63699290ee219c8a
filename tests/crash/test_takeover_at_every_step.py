"""An enforcing daemon killed at every step of a request, of staging and of rebasing, with another one that takes over:
the turn does not notice, nobody is told an error, and every record is there once, and reachable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import watched
from tests.crash.test_kill_enforcing import Lives, idle
from tests.support.faulty import DAEMON
from tests.support.guard import Guard
from tests.support.kill_stories import STORIES
from tests.support.killed_daemon import KILL, REQUESTS
from tests.support.machine import FULL
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.mount, pytest.mark.crash]

KILLS = int(os.environ.get("GUARDFS_STEP_KILLS") or 3)
"""Of each story, in short runs; in long ones it is killed at each of its steps."""


class Successions(Lives):
    """One guard, of which daemon after daemon is killed."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.at(0)

    def begin(self) -> Guard:
        guard = Guard(
            self.directory,
            self.place / "beside",
            "--policy",
            str(self.policy),
            "--mode",
            "enforce",
            "--max-deaths",
            "100000",
            command=[sys.executable, "-m", "tests.support.faulty"],
            env={DAEMON: "tests.support.killed_daemon", KILL: str(self.switch), REQUESTS: "1"},
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


@pytest.fixture
def lives(place: Path) -> Iterator[Successions]:
    made = Successions(place)
    with watched(made.guards, 3600):
        yield made
        for guard in made.guards:
            guard.destroy()


@pytest.mark.parametrize("story", STORIES)
def test_a_turn_does_not_notice(lives: Successions, story: str) -> None:
    guard = lives.begin()
    device = guard.directory.stat().st_dev
    whole = lives.at(0)
    assert lives.tell(story) == 0
    wait_for(lambda: idle(guard), "branches to be rebased")
    names = lives.names(whole)
    assert {"create.begun", "create.acted", "request.answered"} <= set(names)
    wanted: list[int | str] = (
        list(range(1, len(names) + 1))
        if FULL
        else [1 + (2 * number + 1) * len(names) // (2 * KILLS) for number in range(KILLS)]
    )
    if "rename.begun" in names:  # a thread of the daemon hangs then, and keeps it from ending
        wanted.append("rename.begun")
    if story == "append" and not FULL:
        acted = ("create.acted", "write.acted", "unlink.acted")
        wanted += [
            f"{name}:{number}" for name in acted for number in (names.count(name) // 2, names.count(name))
        ]
    deaths = 0
    for count in wanted:
        at = lives.at(count)
        about = f"killed at step {count}, {names[count - 1] if isinstance(count, int) else count}"
        assert lives.tell(story) == 0, about
        wait_for(lambda: idle(guard), f"branches to be rebased: {about}")
        status = guard.status()
        assert status["daemon"]["restarts"] - deaths in (0, 1), about  # the steps are not the same each time
        deaths = status["daemon"]["restarts"]
        assert not status["internal_errors"]["count"], f"{about}: {guard.said()}"
        lives.check()
        assert guard.directory.stat().st_dev == device
        assert lives.names(at), about
    assert deaths >= len(wanted) - 1
    takeovers = guard.events(lambda event: event["op"] == "takeover")
    assert not [event for event in takeovers if "lost" in event], takeovers
    lost = guard.events(lambda event: event["op"] == "incident" and event["outcome"] == "lost")
    assert not lost, lost
