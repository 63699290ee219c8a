"""Records of a whole file with their places, however the file is read, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.formats import FORMATS, PI, Format
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.positions import MAX_LINE, Position, positions
from tests.unit.test_records import STREAMS


def by_hand(format: Format, text: bytes, offset: int, bound: int) -> list[Position]:
    found = []
    for line in text.split(b"\n"):
        if line.strip():
            record = format.peek(line[:bound]) if len(line) > bound else format.parse(line)
            found.append(Position(offset, len(line), record))
        offset += len(line) + 1
    if found and text.rpartition(b"\n")[2].strip():
        found[-1] = found[-1]._replace(newline=False)
    return found


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(
    text=STREAMS,
    cuts=st.lists(st.integers(0, 300), max_size=9),
    bound=st.sampled_from([20, 60, MAX_LINE]),
    offset=st.sampled_from([0, 17]),
)
def test_however_a_file_is_read_its_records_stand_where_they_stand(
    format: Format, text: bytes, cuts: list[int], bound: int, offset: int
) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[begin:end] for begin, end in pairwise(edges)]
    found = list(positions(chunks, format, offset, bound))
    assert found == by_hand(format, text, offset, bound)


def test_blank_lines_are_no_records_and_the_last_one_may_lack_its_newline() -> None:
    text = b'\n{"id":"a"}\n \r\n{"id":"b"}'
    assert list(positions([text])) == [
        Position(1, 10, RecordMeta(id="a")),
        Position(15, 10, RecordMeta(id="b"), newline=False),
    ]


def test_a_record_of_100_megabytes_costs_no_more_memory_than_the_bound() -> None:
    block = b"x" * (1 << 16)

    def chunks() -> Iterator[bytes]:
        yield b'{"id":"a"}\n{"type":"message","id":"b","parentId":"a","message":{"role":"user","content":"'
        for _ in range(1600):
            yield block
        yield b'"}}\n{"id":"c"}\n'

    tracemalloc.start()
    try:
        found = list(positions(chunks(), PI, max_record=1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [each.record for each in found] == [
        RecordMeta(id="a"),
        RecordMeta("message", "user", "b", "a", oversize=True),
        RecordMeta(id="c"),
    ]
    assert found[1].length > 100_000_000 and found[2].offset == found[1].offset + found[1].length + 1
    assert peak < 4 << 20
