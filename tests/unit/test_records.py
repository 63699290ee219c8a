"""Records are read for their meta data, whole, in parts and broken; never for their text."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.formats import FORMATS, PI, Format
from guardfs.transcript.records import INVALID, MAX_RECORD, OVERSIZE, PART, Assembler, RecordMeta, parse

MESSAGE = {
    "type": "message",
    "id": "bf09",
    "parentId": "653a",
    "message": {"role": "user", "provider": "openclaw", "model": "delivery-mirror", "content": "hi"},
}
MESSAGE_META = RecordMeta("message", "user", "bf09", "653a", "openclaw", "delivery-mirror")


def test_a_message_gives_type_role_id_parent_provider_and_model() -> None:
    assert parse(json.dumps(MESSAGE).encode()) == MESSAGE_META


def test_a_header_has_no_parent() -> None:
    assert parse(b'{"type":"session","version":3,"id":"s1","cwd":"/"}') == RecordMeta("session", id="s1")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"nonsense", b"[1]", b'"x"', b"7", b"null", b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_object_is_invalid(line: bytes) -> None:
    assert parse(line) == INVALID


def test_values_of_the_wrong_type_are_left_out_and_the_rest_is_kept() -> None:
    line = b'{"type":"message","id":7,"parentId":null,"message":{"role":["x"],"model":"m"}}'
    assert parse(line) == RecordMeta("message", model="m")
    assert parse(b'{"type":"custom","id":"a","message":"text"}') == RecordMeta("custom", id="a")


def test_a_text_put_where_an_id_belongs_is_cut() -> None:
    found = parse(json.dumps({"type": "x" * 5000, "id": "y" * 80}).encode())
    assert found.type is not None and len(found.type) == 80
    assert found.id == "y" * 80


PIECES = [
    b'{"type":"message","id":"a","parentId":"b","message":{"role":"user"}}', b'{"uuid":"u","parentUuid":"v"}',
    b'{"id":"\xc3\xa9","x":"}\\n{"}',
    b'{"ordinal":1,"type":"x","payload":{}}', b"{}", b"}", b"{", b"[]", b"7", b" ", b"\t",
    b"\r", b"\n", b"\n", b"\n", b"\n\n", b"\xff", b"\\ud83d", b'"', b"x" * 50,
]  # fmt: skip
STREAMS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=30).map(b"".join)


def expected(format: Format, stream: bytes, edges: list[int], bound: int) -> list[RecordMeta]:
    """What a stream cut at *edges* must give, line by line: the record of each line; and, where a write ended behind
    what was a whole object, that one first, and `INVALID` if more than blanks follow on the line."""
    found, begin = [], 0
    for line in stream.split(b"\n"):
        end = begin + len(line)
        early = None
        for edge in edges:
            part = stream[begin:edge]
            if begin < edge <= end and part.rstrip().endswith(b"}") and len(part) <= bound:
                record = format.parse(part)
                if not record.invalid:
                    early = edge, record
                    break
        if early is not None:
            found.append(early[1])
            if end < len(stream) and stream[early[0] : end].strip():
                found.append(INVALID)
        elif end < len(stream) and line.strip():
            found.append(format.peek(line[:bound]) if len(line) > bound else format.parse(line))
        begin = end + 1
    return found


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(
    stream=STREAMS,
    cuts=st.lists(st.integers(0, 300), max_size=7),
    bound=st.sampled_from([20, 60, MAX_RECORD]),
)
def test_however_a_stream_is_cut_the_same_records_come_out(
    format: Format, stream: bytes, cuts: list[int], bound: int
) -> None:
    assembler = Assembler(max_record=bound, format=format)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    found: list[RecordMeta] = []
    for begin, end in pairwise(edges):
        found += assembler.feed("k", begin, stream[begin:end])
    assert [record for record in found if record is not PART] == expected(format, stream, edges[1:], bound)
    assert assembler.held <= len(stream.rpartition(b"\n")[2])


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 50), st.binary(max_size=40))))
def test_any_bytes_in_any_order_are_taken_within_bounds(
    writes: list[tuple[int, int | None, bytes]],
) -> None:
    assembler = Assembler(max_record=30, max_held=50)
    for key, offset, data in writes:
        assembler.feed(key, offset, data)
        assert 0 <= assembler.held <= 50


def test_a_record_without_its_newline_is_told_once() -> None:
    assembler = Assembler()
    line = json.dumps(MESSAGE).encode()
    assert assembler.feed("k", 0, line) == [MESSAGE_META]
    assert assembler.feed("k", len(line), b"\n") == []
    assert assembler.feed("k", len(line) + 1, line + b"\n") == [MESSAGE_META]


def test_two_objects_on_one_line_are_no_record() -> None:
    assembler = Assembler()
    assert assembler.feed("k", 0, b'{"id":"a"}') == [RecordMeta(id="a")]
    assert assembler.feed("k", 10, b'{"id":"b"}\n') == [INVALID]


def test_parts_of_two_processes_do_not_mix() -> None:
    assembler = Assembler()
    assert assembler.feed(("f", 1), 0, b'{"id":') == [PART]
    assert assembler.feed(("f", 2), 6, b'{"id":"b"}\n') == [RecordMeta(id="b")]
    assert assembler.feed(("f", 1), 6, b'"a"}\n') == [RecordMeta(id="a")]


def test_a_write_elsewhere_starts_afresh() -> None:
    assembler = Assembler()
    assembler.feed("k", 0, b'{"id":')
    assert assembler.feed("k", 100, b'{"id":"c"}\n') == [RecordMeta(id="c")]


def test_a_record_beyond_the_bound_is_oversize_and_the_next_is_read() -> None:
    assembler = Assembler(max_record=100)
    assert assembler.feed("k", 0, b'{"id":"' + b"x" * 90) == [PART]
    assert assembler.feed("k", 97, b"x" * 90) == [PART]
    assert assembler.held == 0
    assert assembler.feed("k", 187, b'"}\n{"id":"a"}\n') == [OVERSIZE, RecordMeta(id="a")]
    assert assembler.feed("k", 201, b'{"text":"' + b"x" * 200 + b'"}\n') == [OVERSIZE]


def test_a_record_beyond_the_bound_tells_what_stood_in_its_first_bytes() -> None:
    line = b'{"type":"message","id":"a","parentId":"b","message":{"role":"toolResult","content":"'
    told = RecordMeta("message", "toolResult", "a", "b", oversize=True)
    assembler = Assembler(max_record=1000)
    assert assembler.feed("k", 0, line + b"x" * 2000 + b'"}}\n') == [told]
    size = 3000 + len(line)
    for begin in range(0, 100 << 20, 8 << 20):
        assert assembler.feed("k", size + begin, line + b"x" * ((8 << 20) - len(line))) == [PART]
        assert assembler.held == 0
    assert assembler.feed("k", None, b'"}}\n{"id":"c"}\n') == [told, RecordMeta(id="c")]


def test_a_record_that_comes_in_many_parts_costs_no_more_than_some_times_its_size() -> None:
    read = 0

    def counting(line: bytes) -> RecordMeta:
        nonlocal read
        read += len(line)
        return PI.parse(line)

    assembler = Assembler(format=dataclasses.replace(PI, parse=counting))
    whole = b'{"id":"a","x":"' + b"}" * 20_000 + b'"}\n'
    found = [record for at in range(len(whole)) for record in assembler.feed("k", at, whole[at : at + 1])]
    assert [record for record in found if record is not PART] == [RecordMeta(id="a")]
    assert read < 5 * len(whole)
