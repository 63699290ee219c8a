"""Records are read for their meta data, whole, in parts and broken; never for their text."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.records import INVALID, OVERSIZE, PART, Assembler, RecordMeta, parse

TEXT = st.text(alphabet='aé\u2028"\\{}\n', max_size=6)
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


@given(
    records=st.lists(
        st.dictionaries(
            st.sampled_from(["type", "id", "parentId", "message", "x"]),
            st.text() | st.integers() | st.none() | st.dictionaries(st.text(max_size=5), st.text()),
        ),
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_however_a_stream_is_cut_the_same_records_come_out(records: list[Any], cuts: list[int]) -> None:
    whole = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    assembler = Assembler()
    found: list[RecordMeta] = []
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    for begin, end in pairwise(edges):
        found += assembler.feed("k", begin, whole[begin:end])
    assert [record for record in found if record is not PART] == [
        parse(json.dumps(record).encode()) for record in records
    ]
    assert assembler.held == 0


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
    assert assembler.feed("k", 201, b'{"id":"' + b"x" * 200 + b'"}\n') == [OVERSIZE]
