"""The end of a transcript: the same reads for a small file and a large one, and bounds that hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.chain import History
from guardfs.transcript.formats import CLAUDE_CODE, CODEX, FORMATS, GEMINI_CLI, PI, Format
from guardfs.transcript.meta import INVALID, OVERSIZE, PEEK, RecordMeta
from guardfs.transcript.positions import positions
from guardfs.transcript.tail import FIRST_BLOCK, MAX_READ, Tail, tail
from tests.unit.test_records import STREAMS

LINE = b'{"type":"message","id":"%08x","parentId":"%08x","message":{"role":"user","content":"%b"}}\n'
LINE_SIZE = 200
FILLER = b"x" * (LINE_SIZE - len(LINE % (0, 0, b"")))


class Input:
    """A file as read(offset, size) shows it, with what was asked."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.size = len(text)
        self.asked: list[int] = []

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0 and size > 0 and offset + size <= self.size
        self.asked.append(size)
        return self.bytes(offset, size)

    def bytes(self, offset: int, size: int) -> bytes:
        return self.text[offset : offset + size]


class Long(Input):
    """*count* records of `LINE_SIZE` bytes, made when they are read; then *end*."""

    def __init__(self, count: int, end: bytes = b"") -> None:
        super().__init__(b"")
        self.count = count
        self.end = end
        self.size = count * LINE_SIZE + len(end)

    def bytes(self, offset: int, size: int) -> bytes:
        first, last = offset // LINE_SIZE, min(self.count, (offset + size) // LINE_SIZE + 1)
        made = b"".join(LINE % (number, number - 1 & 0xFFFFFFFF, FILLER) for number in range(first, last))
        if offset + size > self.count * LINE_SIZE:
            made += self.end if first < self.count else self.end[offset - self.count * LINE_SIZE :]
            return (
                made[offset - min(first, self.count) * LINE_SIZE :][:size]
                if first < self.count
                else made[:size]
            )
        return made[offset - first * LINE_SIZE :][:size]


class Stripes(Input):
    """A line of *size* bytes without content, between *begin* and *end*."""

    def __init__(self, begin: bytes, size: int, end: bytes) -> None:
        super().__init__(b"")
        self.begin, self.end = begin, end
        self.size = len(begin) + size + len(end)

    def bytes(self, offset: int, size: int) -> bytes:
        middle = self.size - len(self.end)
        parts = [
            self.begin[offset : offset + size],
            b"x" * (min(offset + size, middle) - max(offset, len(self.begin))),
            self.end[max(0, offset - middle) : max(0, offset + size - middle)],
        ]
        return b"".join(parts)


def of(text: bytes, format: Format = PI, **bounds: int) -> Tail:
    source = Input(text)
    return tail(source.read, source.size, format, **bounds)


@pytest.mark.parametrize("count", [5, 5_000_000], ids=["1 kB", "1 GB"])
def test_a_short_last_record_costs_one_read_whatever_the_size(count: int) -> None:
    source = Long(count)
    assert source.size == count * LINE_SIZE
    found = tail(source.read, source.size)
    assert (found.leaf, found.known, found.newline) == (f"{count - 1:08x}", True, True)
    assert found.leaf_at is found.last
    assert found.last is not None and found.last.offset == (count - 1) * LINE_SIZE
    assert source.asked == [min(source.size, FIRST_BLOCK)]


@pytest.mark.parametrize(
    "end", [b'{"type":"mess', b"\xff\x00", b'{"id":"x"} {'], ids=["torn", "no text", "two"]
)
def test_a_torn_end_is_seen_and_the_record_before_it_is_the_leaf(end: bytes) -> None:
    source = Long(5_000_000, end)
    found = tail(source.read, source.size)
    assert (found.newline, found.leaf) == (False, f"{4_999_999:08x}")
    assert found.last == (source.size - len(end), len(end), INVALID, False)
    assert sum(source.asked) == FIRST_BLOCK


def test_a_whole_last_record_without_its_newline_is_the_leaf() -> None:
    found = of(b'{"id":"a"}\n{"id":"b","parentId":"a"}')
    assert (found.leaf, found.newline, found.last) == (
        "b",
        False,
        (11, 25, RecordMeta(id="b", parent="a"), False),
    )


def test_an_empty_transcript_and_one_with_a_header_only_have_no_leaf_and_that_is_known() -> None:
    assert of(b"") == Tail(True, None, None, None, True)
    assert of(b"\n \n") == Tail(True, None, None, None, True)
    header = of(b'{"type":"session","id":"s"}\n')
    assert (header.leaf, header.known) == (None, True)
    assert header.last is not None and header.last.record.type == "session"


def test_reads_double_for_a_longer_record() -> None:
    line = b'{"type":"message","id":"z","parentId":"y","message":{"content":"' + b"x" * 100_000 + b'"}}\n'
    source = Long(5_000_000, line)
    assert tail(source.read, source.size).leaf == "z"
    assert source.asked == [FIRST_BLOCK << step for step in range(5)]


def test_a_record_beyond_the_bound_is_told_from_its_first_bytes() -> None:
    head = b'{"id":"a"}\n{"type":"message","id":"z","parentId":"a","message":{"role":"toolResult","content":"'
    source = Stripes(head, 5 << 20, b'"}}\n')
    found = tail(source.read, source.size)
    assert (found.leaf, found.known) == ("z", True)
    assert found.last is not None and found.last.offset == 11
    assert found.last.record == RecordMeta("message", "toolResult", "z", "a", oversize=True)
    assert found.last.length == source.size - 12


def test_a_record_without_end_is_given_up_and_said() -> None:
    source = Stripes(b'{"id":"a"}\n{"id":"z","x":"', 1 << 30, b'"}\n')
    found = tail(source.read, source.size)
    assert (found.leaf, found.leaf_at, found.known) == (None, None, False)
    assert found.last is not None and found.last.record == OVERSIZE
    assert found.last.offset == source.size - MAX_READ
    assert sum(source.asked) == MAX_READ and len(source.asked) < 30


def test_a_long_record_that_does_not_tell_its_id_is_no_known_leaf() -> None:
    line = (
        b'{"parentUuid":"u0","type":"user","message":{"content":"' + b"x" * (3 << 20) + b'"},"uuid":"u1"}\n'
    )
    found = of(line, CLAUDE_CODE)
    assert (found.leaf, found.known) == (None, False)
    assert found.leaf_at is not None and found.leaf_at.record.parent == "u0"
    assert of(line, CLAUDE_CODE, max_record=4 << 20).leaf == "u1"


def test_side_chains_and_snapshots_behind_the_leaf_are_passed_over_up_to_a_bound() -> None:
    text = b'{"uuid":"a"}\n' + b'{"uuid":"s","isSidechain":true}\n{"type":"summary"}\n' * 400
    found = of(text, CLAUDE_CODE)
    assert (found.leaf, found.known) == ("a", True)
    assert found.last is not None and found.last.record.type == "summary"
    assert found.leaf_at is not None and found.leaf_at.offset == 0
    given_up = of(text, CLAUDE_CODE, max_records=100)
    assert (given_up.leaf, given_up.known) == (None, False)


def test_a_leaf_record_names_the_leaf() -> None:
    text = b'{"id":"a"}\n{"id":"b","parentId":"a"}\n{"type":"leaf","id":"l","parentId":"b","targetId":%b}\n'
    assert of(text % b'"a"')[2:] == ("a", None, True)
    assert of(text % b"null")[2:] == (None, None, True)
    assert of(text % b"3").leaf == "b"


def test_without_parents_the_last_record_is_the_leaf() -> None:
    found = of(b'{"ordinal":1,"type":"event_msg","payload":{}}\n{"type":"event_msg","payload":{}}\n', CODEX)
    assert (found.leaf, found.known) == (None, True)
    assert found.leaf_at is not None and found.leaf_at.offset == 46
    rewound = of(b'{"id":"a","type":"user"}\n{"$rewindTo":"a"}\n', GEMINI_CLI)
    assert (rewound.leaf, rewound.leaf_at, rewound.known) == (None, None, False)


def test_a_file_that_has_become_shorter_is_given_up() -> None:
    source = Long(100)
    assert tail(lambda offset, size: source.read(offset, size)[: size // 2], source.size).known is False


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(
    text=st.lists(
        STREAMS | st.just(b'{"type":"leaf","id":"l","parentId":null,"targetId":"a"}\n'), max_size=4
    ).map(b"".join),
    bound=st.sampled_from([20, 60, 1 << 20]),
    budget=st.sampled_from([30, MAX_READ]),
)
def test_the_end_is_what_reading_the_whole_file_tells(
    format: Format, text: bytes, bound: int, budget: int
) -> None:
    source = Input(text)
    found = tail(source.read, source.size, format, max_record=bound, max_read=budget)
    assert sum(source.asked) <= budget + PEEK
    assert found.newline == (not text or text.endswith(b"\n"))
    whole = list(positions([text], format, max_record=bound))
    if budget == MAX_READ:
        assert found.last == (whole[-1] if whole else None)
    if not found.known:
        return
    history = History(format)
    void = [history.add(each.record).void for each in whole]
    if not any(void):
        assert found.leaf == history.leaf
    if found.leaf_at is not None:
        assert found.leaf_at in whole
