"""What a guard that was killed at any step has left is brought to its end by the next one: nothing lost, nothing
twice."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lab import HEADER, Lab, Op, record
from tests.support.machine import FULL

START = HEADER + record("base0001", None) + record("base0002", "base0001")

SCENARIOS: dict[str, tuple[bytes | None, list[Op]]] = {
    "append": (START, [("open", 0), ("append", 0), ("append", 0), ("own", 0), ("merge", 0)]),
    "append to an empty file": (b"", [("open", 0), ("append", 0), ("merge", 0)]),
    "append behind a torn line": (START[:-1], [("open", 0), ("append", 0), ("merge", 0)]),
    "append in pieces": (START, [("open", 0), ("big", 0), ("big", 0), ("own", 0), ("merge", 0)]),
    "two branches": (
        START,
        [("open", 0), ("open", 1), ("append", 1), ("append", 0), ("append", 1), ("merge", 1), ("merge", 0)],
    ),
    "made from nothing": (None, [("open", 0), ("append", 0), ("append", 0), ("merge", 0)]),
    "made twice": (
        None,
        [("open", 0), ("open", 1), ("append", 0), ("append", 1), ("merge", 0), ("merge", 1)],
    ),
    "made in pieces": (None, [("open", 0), ("big", 0), ("big", 0), ("merge", 0)]),
    "replaced": (
        START,
        [("open", 0), ("append", 0), ("rewrite", 0), ("own", 0), ("append", 0), ("merge", 0)],
    ),
    "replaced in pieces": (START, [("open", 0), ("rewrite", 0), ("big", 0), ("big", 0), ("merge", 0)]),
    "replaced and appended to": (
        START,
        [("open", 0), ("open", 1), ("append", 1), ("rewrite", 0), ("own", 0), ("merge", 1), ("merge", 0)],
    ),
    "replaced before it was there": (None, [("open", 0), ("append", 0), ("rewrite", 0), ("merge", 0)]),
    "removed below": (START, [("open", 0), ("append", 0), ("vanish", 0), ("append", 0), ("merge", 0)]),
    "two removed below": (
        START,
        [("open", 0), ("open", 1), ("append", 0), ("append", 1), ("vanish", 0), ("merge", 0), ("merge", 1)],
    ),
    "replaced below": (START, [("open", 0), ("append", 0), ("swap", 0), ("own", 0), ("merge", 0)]),
    "replaced here and below": (START, [("open", 0), ("rewrite", 0), ("swap", 0), ("own", 0), ("merge", 0)]),
    "empty": (START, [("open", 0), ("own", 0), ("merge", 0)]),
    "renamed away": (START, [("away", 0), ("own", 0), ("own", 0)]),
    "renamed away, and made anew": (START, [("away", 0), ("own", 0), ("anew", 0), ("own", 0)]),
    "renamed away, made anew, and nothing said": (START, [("away", 0), ("anew", 0)]),
    "renamed away with a branch": (
        START,
        [("open", 0), ("append", 0), ("away", 0), ("own", 0), ("append", 0)],
    ),
    "renamed away with a branch, and made anew": (
        START,
        [("open", 0), ("append", 0), ("away", 0), ("own", 0), ("anew", 0), ("append", 0)],
    ),
    "removed": (START, [("remove", 0)]),
    "removed and written": (START, [("remove", 0), ("own", 0)]),
    "removed, and made anew": (START, [("remove", 0), ("own", 0), ("anew", 0), ("own", 0)]),
    "removed with a branch": (START, [("open", 0), ("append", 0), ("remove", 0), ("own", 0), ("append", 0)]),
}

EVERY = 4096
"""More steps than any scenario takes."""


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory, if there is one: so much is synced here."""
    shm = "/dev/shm"
    place = Path(tempfile.mkdtemp(prefix="guardfs-lab-", dir=shm if os.access(shm, os.W_OK) else None))
    yield place
    shutil.rmtree(place)


def recovered_right(lab: Lab, first: bytes | None) -> None:
    """Recovery brings all to its end; a second one finds nothing to do."""
    before = time.time_ns()
    for found in lab.recover():
        assert found.error == "" and found.merged is not None
    lab.check(lab.model(first))
    files = lab.files()
    assert all(mtime <= before for _, mtime in files.values()), "newer than the last write"
    assert lab.recover() == []
    assert lab.files() == files
    lab.remove()


def steps_of(memory: Path, first: bytes | None, ops: Sequence[Op]) -> int:
    shutil.rmtree(memory / "whole", ignore_errors=True)
    shutil.rmtree(memory / "ended", ignore_errors=True)  # of a test that failed
    lab = Lab(memory / "whole")
    steps = lab.play(ops, first=first)
    assert steps is not None
    recovered_right(lab, first)
    return steps


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_step(memory: Path, name: str) -> None:
    first, ops = SCENARIOS[name]
    for step in range(steps_of(memory, first, ops)):
        lab = Lab(memory / "ended")
        assert lab.play(ops, first=first, last=step) is None, "it was not killed"
        recovered_right(lab, first)


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_again_at_every_step_of_the_recovery(memory: Path, name: str) -> None:
    first, ops = SCENARIOS[name]
    steps = steps_of(memory, first, ops)
    for step in range(steps + 1) if FULL else {steps // 2, max(0, steps - 1), steps}:
        ended = False
        for again in range(EVERY):
            lab = Lab(memory / "ended")
            lab.play(ops, first=first, last=step)
            ended = lab.recover_until(again) is not None
            recovered_right(lab, first)
            if ended:
                break
        assert ended, "it never came to its end"


WORDS = "open append append append rewrite own own merge merge away anew remove swap vanish".split()


@settings(max_examples=2000 if FULL else 60)
@given(
    first=st.sampled_from([None, b"", START, START[:-1]]),
    ops=st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 2)), min_size=2, max_size=14),
    ended=st.floats(0, 1),
    again=st.integers(0, 12),
)
def test_killed_at_any_step_of_any_scenario(
    memory: Path, first: bytes | None, ops: list[Op], ended: float, again: int
) -> None:
    ops = [("open", 0), ("open", 1), *ops]
    last = int(ended * steps_of(memory, first, ops))
    lab = Lab(memory / "ended")
    lab.play(ops, first=first, last=last)
    lab.recover_until(again)
    recovered_right(lab, first)
