"""The fence machine against agents that keep the real protocol, foreign writers and crashes, in any order.

GUARDFS_STORIES says how many stories are tried (default: some thousand, the same ones each time); with it they are
new ones each time. A story that fails is shrunk, and printed as the list of what happened.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.stories import PARTS, play

_ASKED = os.environ.get("GUARDFS_STORIES", "")
STORIES = int(_ASKED) if _ASKED else 4000

stories = settings(
    max_examples=STORIES,
    derandomize=not _ASKED,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@stories
@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=6), order=st.binary(max_size=160))
def test_every_death_has_its_incident_and_every_incident_its_culprit(parts: list[str], order: bytes) -> None:
    play(parts, order)


@stories
@given(rest=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), order=st.binary(max_size=160))
def test_a_turn_among_others(rest: list[str], order: bytes) -> None:
    play(["tool turn", *rest], order)
