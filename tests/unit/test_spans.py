"""Whose byte is whose, held against a list with a number for each byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guardfs.audit.spans import Spans

SIZE = 40
_place = st.integers(0, SIZE)
_changes = st.lists(st.one_of(st.tuples(_place, _place), _place), max_size=20)


@given(_changes)
def test_every_byte_has_the_number_of_the_last_change_that_reached_it(
    changes: list[tuple[int, int] | int],
) -> None:
    spans, naive = Spans(), [None] * SIZE
    for number, change in enumerate(changes):
        if isinstance(change, tuple):
            begin, end = change
            spans.put(begin, end, number)
            naive[begin:end] = [number] * (end - begin)  # type: ignore[list-item]
        else:
            spans.cut(change)
            naive[change:] = [None] * (SIZE - change)
    assert [spans.at(offset) for offset in range(SIZE)] == naive
    assert spans.end == max(
        (offset + 1 for offset, number in enumerate(naive) if number is not None), default=0
    )


def test_appends_are_one_part_each() -> None:
    spans = Spans()
    for number in range(1000):
        spans.put(number * 10, number * 10 + 10, number)
    assert len(spans) == 1000 and spans.at(5_005) == 500 and spans.at(10_000) is None and spans.at(-1) is None
