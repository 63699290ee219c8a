"""SIGKILL to everything in a turn: supervisor, daemon and command. The next start clears the dead mount away, and every
record whose write returned is there, once, and reachable."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.agent import NAME
from tests.support.container import Container, children
from tests.support.kill_stories import START
from tests.support.lab import check, ids, model
from tests.support.machine import FULL
from tests.support.mounts import mounts_below
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.mount, pytest.mark.crash]

POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"
MOMENTS = {"append": (4, 6), "replace": (4,), "new": (4,), "two": (6,), "absent": (2,)}
LAST = {"append": 9, "replace": 9, "new": 11, "two": 11, "absent": 6}
KILLS = [
    (story, count)
    for story, some in MOMENTS.items()
    for count in (range(1, LAST[story] + 1) if FULL else some)
]
"""Killed once the story has said so many things; it has more to say then."""


def below(pid: int) -> list[int]:
    """The descendants of a process."""
    found = children(pid)
    return found + [each for child in found for each in below(child)]


def kill_all(run: Container) -> None:
    """Everything at once; as PID 1, the kernel does that."""
    every = [run.first_pid, *below(run.first_pid)]
    if run.first:
        run.kill()
    else:
        for pid in every:  # the supervisor first: nobody is left to take the mount off
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # a helper that had done its work
                pass
        run.process.wait(60)
    wait_for(lambda: not any(map(alive, every)), "all to be dead")


def has_said(said: Path, count: int, run: Container) -> bool:
    """Whether the story is so far; fails if it has ended."""
    assert run.process.poll() is None, run.complained()
    return said.exists() and said.read_bytes().count(b"\n") >= count


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("first", [True, False], ids=["PID-1", "process"])
@pytest.mark.parametrize(("story", "count"), KILLS)
def test_what_was_written_survives_it(place: Path, story: str, count: int, first: bool) -> None:
    said = place / "said"
    directory = place / "sessions"
    directory.mkdir()
    (directory / NAME).write_bytes(START)
    teller = [sys.executable, "-m", "tests.support.kill_stories", story, str(directory), str(said), "stay"]
    options = ["--policy", str(POLICY), "--mode", "enforce", "--force"]
    with Container(place, teller, *options, first=first) as run:
        wait_for(lambda: has_said(said, count, run), "the moment", 60)
        kill_all(run)
        assert run.process.returncode != 0, "it had ended before"
        assert bool(mounts_below(directory)) is not first, "a dead mount is left, but with its namespace"
        reader = f'[ ! -e "{directory / NAME}" ] || cat "{directory / NAME}"'  # perhaps it was renamed away
        with Container(place, ["sh", "-c", reader], *options, first=first) as again:
            assert again.ended() == 0, again.complained()
            assert ("a dead mount was cleared away" in again.complained()) is not first
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".lock"}
    files.pop("sync-tool", None)
    assert list((place / "state").glob("branches/*")) == [], "nothing is left of how it came there"
    found = model(said, START)
    check(files, found, NAME)
    assert set(ids(again.said().encode())) >= found.there & set(ids(files.get(NAME, b""))), (
        "and the agent saw it"
    )
