"""Whose chain a record continues, from the little that the daemon keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.chain import History
from guardfs.transcript.formats import CODEX, LINES, PI, Format
from guardfs.transcript.meta import INVALID, OVERSIZE, RecordMeta
from guardfs.transcript.recent import Recent
from tests.unit.test_transcript_chain import HEADER, RECORDS, leaf, step


def recent(*records: tuple[RecordMeta, str], known: bool = True) -> Recent:
    found = Recent(known=known)
    for record, lane in records:
        found.add(record, lane)
    return found


def test_own_chain_foreign_chain_and_leaf_are_told_apart() -> None:
    found = recent((step("a"), "run"), (step("x", "a"), "cron"), (step("y", "x"), "mirror"))
    assert found.continues(step("b", "a"), "run", owner="run") == "owner"
    assert found.continues(step("b", "a"), "cron", owner="run") == "owner"
    assert found.continues(step("b", "x"), "cron", owner="run") == "branch"
    assert found.continues(step("b", "y"), "cron", owner="run") == "leaf"
    assert found.continues(step("b", "x"), "other", owner="run") == "none"
    assert found.continues(step("b", "a"), "run") == "branch"
    assert found.lane_of("x") == "cron" and found.last_of("run") == "a"


def test_the_first_record_continues_an_empty_transcript() -> None:
    found = recent((HEADER, "run"))
    assert found.continues(step("a"), "run") == "leaf"
    found.add(step("a"), "run")
    assert found.continues(step("b"), "cron") == "none"


def test_what_is_not_known_is_not_guessed() -> None:
    found = recent((step("a"), "run"), known=False)
    found.replaced()
    assert found.continues(step("b", "a"), "run", owner="run") is None
    found.replaced(leaf="z", known=True)
    assert found.continues(step("b", "z"), "run") == "leaf"
    assert found.continues(step("b", "a"), "run", owner="run") == "none"
    found.add(OVERSIZE, "run")
    assert (found.leaf, found.known) == (None, False)


@pytest.mark.parametrize("record", [HEADER, INVALID, RecordMeta("custom")])
def test_what_is_no_step_continues_nothing(record: RecordMeta) -> None:
    assert recent((step("a"), "run")).continues(record, "run") is None


@pytest.mark.parametrize("format", [CODEX, LINES], ids=lambda format: format.name)
def test_without_parents_nobody_can_say(format: Format) -> None:
    assert Recent(format, known=True).continues(RecordMeta("x", id="1"), "run") is None


def test_behind_a_side_record_the_leaf_goes_on() -> None:
    found = recent((step("a"), "run"), (step("s", "a", side=True), "hook"))
    assert found.leaf == "a"
    assert found.continues(step("b", "s"), "cron") == found.continues(step("b", "a"), "cron") == "leaf"
    found.add(leaf("a", "s", onto="s"), "run")
    assert found.continues(step("b", "s"), "cron") == "leaf"


def test_only_the_last_ids_are_kept() -> None:
    found = Recent(known=True, keep=4)
    for number in range(1000):
        found.add(step(f"{number}", f"{number - 1}"), f"lane {number % 10}")
    assert [number for number in range(1000) if found.lane_of(f"{number}") is not None] == [
        996,
        997,
        998,
        999,
    ]
    assert [lane for lane in range(10) if found.last_of(f"lane {lane}") is not None] == [6, 7, 8, 9]
    assert found.leaf == "999"


@given(st.lists(RECORDS, max_size=20))
def test_the_leaf_is_that_of_the_whole_history(records: list[RecordMeta]) -> None:
    whole, found = History(PI), Recent(known=True)
    for record in records:
        if not whole.add(record).void:
            found.add(record, "run")
        assert found.leaf == whole.leaf
