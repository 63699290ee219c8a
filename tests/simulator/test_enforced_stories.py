"""Enforcement, without a mount, against agents that keep the real protocol, foreign writers and crashes, in any order.

A story that fails is shrunk, and printed as the list of what happened. GUARDFS_FULL=1 plays a million, new ones each
time; otherwise they are the same ones each time. GUARDFS_STORIES says another number.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.enforced_stories import PARTS, play
from tests.support.machine import FULL

_ASKED = os.environ.get("GUARDFS_STORIES", "")
STORIES = int(_ASKED) if _ASKED else 1_000_000 if FULL else 10_000

stories = settings(
    max_examples=STORIES // 2,
    derandomize=not _ASKED and not FULL,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

runs = st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=24)
orders = st.binary(max_size=120) | runs.map(
    lambda each: b"".join(bytes([who]) * times for who, times in each)
)
"""Who is next: anybody each time, or the same one for a while, which comes deeper."""


@stories
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    order=orders,
    there=st.booleans(),
)
def test_whoever_meets_nothing_is_lost(place: Path, parts: list[str], order: bytes, there: bool) -> None:
    play(parts, order, place, there)


@stories
@given(
    rest=st.lists(st.sampled_from(PARTS), min_size=1, max_size=3),
    order=orders,
    there=st.booleans(),
)
def test_a_turn_among_others_lives_and_keeps_all(
    place: Path, rest: list[str], order: bytes, there: bool
) -> None:
    play(["turn", *rest], order, place, there)
