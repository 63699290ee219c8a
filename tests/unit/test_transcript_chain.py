"""Leaf, path, forks and forgotten records, checked against a plain model that knows every record."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.chain import Fork, History, Standing
from guardfs.transcript.formats import CLAUDE_CODE, CODEX, GEMINI_CLI, LINES, PI, Format, Place
from guardfs.transcript.meta import INVALID, OVERSIZE, RecordMeta

KEPT, FORGOTTEN, REPLACED = Standing.KEPT, Standing.FORGOTTEN, Standing.REPLACED


def step(record_id: str | None, parent: str | None = None, **more: Any) -> RecordMeta:
    return RecordMeta("message", id=record_id, parent=parent, **more)


def leaf(target: str, parent: str | None = None, record_id: str = "L", onto: str | None = None) -> RecordMeta:
    return RecordMeta("leaf", id=record_id, parent=parent, target=target, onto=onto)


HEADER = RecordMeta("session", id="s")


def history(*records: RecordMeta | tuple[RecordMeta, str], format: Format = PI) -> History:
    found = History(format)
    for record in records:
        found.add(*record) if isinstance(record, tuple) else found.add(record)
    return found


def path(found: History) -> list[int]:
    return list(found.path())


def test_the_path_leads_from_the_last_record_to_the_first() -> None:
    found = history(HEADER, step("a"), step("b", "a"), step("c", "b"))
    assert (found.leaf, found.leaf_index, path(found)) == ("c", 3, [3, 2, 1])
    assert [found.standing(each) for each in range(4)] == [Standing.HEADER, KEPT, KEPT, KEPT]
    assert not found.forgotten() and not found.forks() and not found.orphans() and not found.restarts()


def test_an_empty_history_has_no_leaf() -> None:
    found = history(HEADER)
    assert (found.leaf, found.leaf_index, path(found), len(found)) == (None, None, [], 1)
    assert path(History()) == []


def test_a_foreign_record_between_two_of_the_run_is_forgotten_and_the_fork_is_between_lanes() -> None:
    found = History()
    found.add(HEADER, "run")
    found.add(step("a"), "run")
    foreign = found.add(step("x", "a"), "cron")
    assert (foreign.fork, foreign.crossed) == (None, False)
    own = found.add(step("b", "a"), "run")
    assert (own.number, own.place, own.fork, own.crossed) == (3, Place.NODE, 2, True)
    assert found.forgotten() == [2]
    assert found.forks() == [Fork(1, (2, 3), True)]


def test_a_fork_of_one_lane_is_a_fork_between_no_lanes() -> None:
    found = history((step("a"), "run"), (step("b", "a"), "run"), (step("c", "a"), "run"))
    assert found.forks() == [Fork(0, (1, 2), False)]
    crossing = found.add(step("d", "a"), "cron")
    again = found.add(step("e", "a"), "run")
    assert crossing.crossed and again.crossed
    assert found.forks() == [Fork(0, (1, 2, 3, 4), True)]


def test_a_record_without_parent_forgets_all_before_it() -> None:
    found = History()
    found.add(step("a"))
    found.add(step("b", "a"))
    assert found.add(step("c")).restart
    assert found.restarts() == [2] and found.forgotten() == [0, 1] and path(found) == [2]


def test_a_record_whose_parent_is_nowhere_is_an_orphan_until_it_comes() -> None:
    found = History()
    assert found.add(step("b", "a")).orphan
    assert found.orphans() == [0] and path(found) == [0]
    found.add(step("a"))
    found.add(step("c", "b"))
    assert found.orphans() == [] and path(found) == [2, 0, 1] and found.parent(0) == 1


def test_a_parent_that_comes_late_shows_the_fork_of_its_children() -> None:
    found = history((step("b", "a"), "run"), (step("c", "a"), "cron"), (step("a"), "run"))
    assert found.forks() == [Fork(2, (0, 1), True)]


def test_the_same_record_twice_is_one_step_and_no_fork() -> None:
    found = History()
    found.add(step("a"))
    found.add(step("b", "a"))
    assert found.add(step("b", "a")).same == 1
    found.add(step("c", "b"))
    assert [found.standing(each) for each in range(4)] == [KEPT, REPLACED, KEPT, KEPT]
    assert found.duplicates() == {2: 1} and found.forks() == [] and found.forgotten() == []


def test_a_replaced_step_keeps_its_forks() -> None:
    found = history(
        (step("a"), "r"), (step("b", "a"), "r"), (step("c", "a"), "x"), (step("a"), "r"), (step("d", "c"), "r")
    )  # fmt: skip
    assert found.forks() == [Fork(3, (1, 2), True)]
    assert path(found) == [4, 2, 3]


def test_ids_that_make_a_circle_end_the_path() -> None:
    assert path(history(step("a", "a"))) == [0]
    found = history(step("a"), step("b", "a"), step("a", "b"))
    assert path(found) == [2, 1]


def test_lines_that_are_no_records_change_nothing() -> None:
    found = history(step("a"), INVALID, RecordMeta("custom"), OVERSIZE, step("b", "a"))
    assert [found.standing(each) for each in (1, 2, 3)] == [Standing.INVALID, Standing.APART, Standing.APART]
    assert path(found) == [4, 0]


# ---- leaf records of pi


def test_a_leaf_record_moves_the_leaf_and_stands_for_its_target() -> None:
    found = history(step("a"), step("b", "a"), step("c", "b"), leaf("a", "c"))
    assert (found.leaf, path(found)) == ("a", [0])
    assert found.standing(3) is Standing.CONTROL and found.forgotten() == [1, 2]
    found.add(step("d", "L"))
    assert path(found) == [4, 0]


def test_a_leaf_record_without_target_leads_to_the_start() -> None:
    found = history(step("a"), leaf("", "a"))
    assert (found.leaf, path(found)) == (None, [])
    assert not found.add(step("b")).restart
    assert path(found) == [2]


def test_a_leaf_record_that_points_nowhere_is_ignored() -> None:
    found = history(step("a"))
    assert found.add(leaf("zz", "a")).void
    assert found.add(leaf("a", "a", onto="zz")).void
    assert (found.leaf, found.standing(1)) == ("a", Standing.INVALID)


def test_what_is_appended_behind_a_side_record_continues_the_leaf() -> None:
    found = history(step("a"), step("s", "a", side=True), step("b", "s"))
    assert path(found) == [2, 0] and found.standing(1) is Standing.SIDE and found.forks() == []
    pointed = history(step("a"), step("x", "a"), step("y", "x"), leaf("a", "y", onto="y"), step("b", "y"))
    assert path(pointed) == [4, 0] and pointed.forgotten() == [1, 2]


# ---- the others


def test_a_side_chain_of_claude_code_is_beside_the_conversation() -> None:
    found = history(
        step("a"), step("x", None, side=True), step("y", "x", side=True), RecordMeta("summary"), step("b", "a"),
        format=CLAUDE_CODE,
    )  # fmt: skip
    assert (found.leaf, path(found)) == ("b", [4, 0])
    assert found.forgotten() == [] and found.restarts() == []


@pytest.mark.parametrize("format", [CODEX, LINES], ids=lambda format: format.name)
def test_without_parents_nothing_is_forgotten(format: Format) -> None:
    records = [RecordMeta("event_msg", id=number) for number in ("0", "1", "1", None)]
    found = history(*records, INVALID, format=format)
    assert path(found) == [3, 2, 1, 0]
    assert found.duplicates() == {2: 1} and found.forks() == []


def test_gemini_cli_replaces_an_id_where_it_stood() -> None:
    found = history(step("a"), step("b"), step("c"), step("b"), format=GEMINI_CLI)
    assert path(found) == [2, 3, 0] and found.standing(1) is REPLACED and found.leaf == "c"


def test_gemini_cli_takes_back_a_record_and_all_after_it() -> None:
    back = RecordMeta("$rewindTo", target="b")
    found = history(step("a"), step("b"), step("c"), back, step("d"), format=GEMINI_CLI)
    assert path(found) == [4, 0] and found.forgotten() == [1, 2]
    assert found.standing(3) is Standing.CONTROL
    found.add(step("c"))  # a new one: the old one was taken back
    assert path(found) == [5, 4, 0]
    found.add(RecordMeta("$rewindTo", target="nowhere"))
    assert (path(found), found.leaf) == ([], None)


# ---- against a model

IDS = st.sampled_from("abcdef")
RECORDS = st.one_of(
    st.builds(step, IDS, st.none() | IDS),
    st.builds(step, IDS, st.none() | IDS, side=st.booleans()),
    st.builds(leaf, st.sampled_from(["", *"abcdef"]), st.none() | IDS, st.sampled_from("LMa")),
    st.sampled_from([HEADER, INVALID, RecordMeta("custom")]),
)


@given(
    records=st.lists(RECORDS, max_size=25), lanes=st.lists(st.sampled_from("rx"), min_size=25, max_size=25)
)
def test_the_history_is_what_a_reader_of_the_whole_file_sees(
    records: list[RecordMeta], lanes: list[str]
) -> None:
    """The model: the last record of each id counts; the leaf is the last step; parents are followed by their ids."""
    records = [each for each in records if each.type != "leaf" and not each.side]
    found = history(*zip(records, lanes, strict=False))
    steps = {each.id: number for number, each in enumerate(records) if PI.place(each) is Place.NODE}
    names = [each.id for each in records if PI.place(each) is Place.NODE]
    expected: list[int] = []
    at = names[-1] if names else None
    while at in steps and steps[at] not in expected:
        expected.append(steps[at])
        at = records[steps[at]].parent
    assert path(found) == expected
    for number, record in enumerate(records):
        if PI.place(record) is Place.NODE:
            kept = KEPT if number in expected else REPLACED if steps[record.id] != number else FORGOTTEN
            assert found.standing(number) is kept
    for fork in found.forks():
        ids = {records[child].id for child in fork.children}
        assert len(ids) == len(fork.children) >= 2
        assert {records[child].parent for child in fork.children} == {records[fork.parent].id}
        assert fork.crossed == (len({lanes[child] for child in fork.children}) > 1)


@given(
    records=st.lists(RECORDS | st.builds(RecordMeta, st.just("$rewindTo"), target=IDS), max_size=25),
    format=st.sampled_from([PI, CLAUDE_CODE, CODEX, GEMINI_CLI, LINES]),
)
def test_any_records_in_any_order_make_a_history(records: list[RecordMeta], format: Format) -> None:
    found = history(*records, format=format)
    whole = path(found)
    assert len(set(whole)) == len(whole)
    assert {each for each in range(len(found)) if found.standing(each) is KEPT} == set(whole)
    assert all(found.standing(each) is FORGOTTEN for each in found.forgotten())
    assert sorted(whole + found.forgotten()) == [
        each for each in range(len(found)) if found.standing(each) in (KEPT, FORGOTTEN)
    ]
    assert all(
        found.standing(child) is not Standing.SIDE for fork in found.forks() for child in fork.children
    )


def test_a_long_history_with_forks_and_many_copies_has_one_path() -> None:
    chance = random.Random(4)
    found, ids = History(), ["0"]
    found.add(step("0"))
    for number in range(1, 30_000):
        found.add(step(str(number), ids[-1] if number % 3 else chance.choice(ids)), number % 2)
        ids.append(str(number))
    end = ids[-1]
    for _ in range(30_000):  # one record again and again: a long row of replacements
        found.add(step("again", end), 1)
        found.add(step(end, "1"), 1)
    found.add(step("last", "again"))
    assert path(found) == [len(found) - 1, len(found) - 3, len(found) - 2, 1, 0]
    assert len(found.duplicates()) == 59_999
    assert found.standing(30_000) is REPLACED
