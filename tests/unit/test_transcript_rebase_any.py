"""Any branches on any transcript, whatever their base, merge into one history; and any bytes are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.formats import CLAUDE_CODE, FORMATS, PI, Format, Place
from guardfs.transcript.rebase import merge, rebase
from guardfs.transcript.scan import members
from tests.unit.rebase_tools import HEADER, on, path, read
from tests.unit.test_records import STREAMS

STYLES: list[Callable[[dict[str, Any]], bytes]] = [
    lambda record: json.dumps(record).encode() + b"\n",
    lambda record: json.dumps(record, separators=(",", ":")).encode() + b"\n",
    lambda record: json.dumps(record, indent=1).replace("\n", " ").encode() + b"\r\n",
    lambda record: (
        json.dumps({**record, "text": 'é"}{\\ "parentId":"q"'}, ensure_ascii=False).encode() + b" \n"
    ),
    lambda record: json.dumps({"x": [{"parentId": 1, "parentUuid": 2}], **record}).encode() + b"\n",
    lambda record: b"{" + b'"parentId":"zz","parentUuid":"zz",' + json.dumps(record).encode()[1:] + b"\n",
    lambda record: (
        json.dumps(record).replace("parent", "par\\u0065nt").replace("leaf", "le\\u0061f").encode() + b"\n"
    ),
    lambda record: json.dumps({**record, "cut": "\ud83d"}).encode() + b"\n",
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "next",
                "next",
                "next",
                "fresh",
                "fork",
                "side",
                "back",
                "mirror",
                "rewind",
                "old",
                "junk",
                "header",
            ]
        ),
        st.integers(0, 1 << 16),
        st.integers(0, len(STYLES) - 1),
    ),
    max_size=9,
)


class Lane:
    """Writes records as an agent does that sees *seen* and then its own: the model that the rebase is held against."""

    def __init__(self, name: str, seen: bytes, format: Format) -> None:
        self.name, self.format = name, format
        records, self.view = read(seen, format)
        self.base: list[str | None] = [
            each.id for each in records if each.id and format.place(each) is Place.NODE
        ]
        self.base_leaf, self.names = self.view.leaf, self._cursor()
        self.own: list[str] = []
        self.lines: list[bytes] = []
        self.leaves = 0  # leaf records
        self.outside = 0  # those that point at what was committed

    def write(self, step: str, number: int, style: int) -> None:
        record_id = f"{self.name}{len(self.lines)}"
        cursor = self._cursor()
        if step == "junk":
            self._line(b'{"id":"%b\n' % record_id.encode())
        elif step == "header":
            if self.format is PI:
                self._line(HEADER)
        elif step == "side":
            parent = cursor if self.format.cursor else (None if number % 2 else cursor)
            self._record(record_id, parent, style, appendMode="side", isSidechain=True)
        elif step in ("back", "mirror", "rewind") and self.format.cursor:
            choice = {"back": self.own, "mirror": [self.base_leaf], "rewind": self.base}
            targets: Sequence[str | None] = choice[step]  # type: ignore[assignment]
            if targets:
                target = targets[number % len(targets)]
                self.leaves += 1
                self.outside += step != "back"
                more = {} if number % 3 else {"appendParentId": cursor}
                self._record(record_id, cursor, style, type="leaf", targetId=target, **more)
        elif step == "fork" and self.own:
            self._record(record_id, self.own[number % len(self.own)], style)
        elif step == "old" and self.base:
            self._record(record_id, self.base[number % len(self.base)], style)
        else:
            self._record(record_id, self.base_leaf if step == "fresh" else cursor, style)

    def _cursor(self) -> str | None:
        """What the agent names as the parent of its next record."""
        return (self.view.onto or self.view.leaf) if self.format.cursor else self.view.leaf

    def _record(self, record_id: str, parent: str | None, style: int, **more: Any) -> None:
        keys = ("id", "parentId") if self.format is PI else ("uuid", "parentUuid")
        if self.format is PI:
            more.pop("isSidechain", None)
        else:
            more.pop("appendMode", None)
        record = {"type": "message", keys[0]: record_id, keys[1]: parent, **more}
        self._line(STYLES[style](record))
        if more.get("type") != "leaf" and not more.get("isSidechain"):
            self.own.append(record_id)

    def _line(self, line: bytes) -> None:
        self.lines.append(line)
        self.view.add(self.format.parse(line[:-1]))

    def path(self) -> set[str | None]:
        """The branch's own records that the agent behind it remembers."""
        seen = len(self.view) - len(self.lines)
        return {self.format.parse(self.lines[each - seen]).id for each in self.view.path() if each >= seen}


def masked(line: bytes, format: Format) -> bytes:
    """*line* without its parent, and without the target of a ``leaf`` record."""
    line = format.with_parent(line, "*")
    if format.place(format.parse(line)) is Place.LEAF:
        for key, begin, end in members(line):
            if key == b"targetId":
                return line[:begin] + line[end:]
    return line


@pytest.mark.parametrize("format", [PI, CLAUDE_CODE], ids=lambda format: format.name)
@given(
    start=STEPS,
    branches=st.lists(st.tuples(st.integers(0, 30), STEPS, st.booleans()), max_size=4),
)
def test_branches_merge_into_one_history_whatever_their_base(
    format: Format, start: list[Any], branches: list[Any]
) -> None:
    first = Lane("c", b"", format)
    for step in [("header", 0, 0), ("next", 0, 0), *start]:
        first.write(*step)
    committed = on(None, *first.lines, format=format, header=False).data
    original = committed.splitlines(keepends=True)
    for number, (cut, steps, told) in enumerate(branches):
        lane = Lane(f"{number}-", b"".join(original[: cut % (len(original) + 1)]), format)
        for step in steps:
            lane.write(*step)
        _, history = read(committed, format)
        before = set(path(committed, format))
        found = rebase(
            b"".join(lane.lines), format, leaf=history.leaf, header=True, newline=True,
            onto=history.onto if told else None,
        )  # fmt: skip
        knew = {history.leaf, history.onto}
        committed += found.data
        written = [line for line in lane.lines if line != HEADER]
        got = found.data.splitlines(keepends=True)
        assert [masked(line, format) for line in got] == [masked(line, format) for line in written]
        assert found.dropped == len(lane.lines) - len(written)
        assert found.unparsed == sum(format.parse(line[:-1]).invalid for line in got)
        assert found.records == len(got) - found.unparsed
        assert found.moved == sum(one != other for one, other in zip(got, written, strict=True))
        for one, other in zip(got, written, strict=True):
            record = format.parse(other[:-1])
            if record.parent in lane.own:
                assert format.parse(one[:-1]).parent == record.parent
            if record.target in lane.own:
                assert format.parse(one[:-1]).target == record.target
        now, history = read(committed, format)
        assert found.leaf == history.leaf
        reached = set(path(committed, format))
        assert lane.path() <= reached
        if (
            not lane.outside or not {lane.base_leaf, lane.names} & knew
        ):  # who names the current leaf may take it back
            assert before <= reached
        ids = [each.id for each in now if each.id]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("format", [PI, CLAUDE_CODE], ids=lambda format: format.name)
@given(start=STEPS, steps=STEPS)
def test_on_its_untouched_base_any_branch_is_clean(
    format: Format, start: list[Any], steps: list[Any]
) -> None:
    first = Lane("c", b"", format)
    for step in start:
        first.write(*step)
    committed = on(None, *first.lines, format=format, header=False).data
    lane = Lane("x", committed, format)
    for step in steps:
        if step[0] not in ("fresh", "old", "header"):  # these do not continue what their writer sees
            lane.write(*step)
    _, history = read(committed, format)
    found = on(history.leaf, *lane.lines, format=format, onto=history.onto)
    assert found.clean and found.leaf == lane.view.leaf


@pytest.mark.parametrize("format", [PI, CLAUDE_CODE], ids=lambda format: format.name)
@given(start=STEPS, steps=STEPS, drop=st.sets(st.integers(0, 12)), also=st.sets(st.integers(0, 9)))
def test_a_replacement_and_what_came_since_hold_each_record_once_on_one_path(
    format: Format, start: list[Any], steps: list[Any], drop: set[int], also: set[int]
) -> None:
    first = Lane("c", b"", format)
    for step in [("header", 0, 0), ("next", 0, 0), *start]:
        first.write(*step)
    base = on(None, *first.lines, format=format, header=False).data
    lane = Lane("x", base, format)
    for step in steps:
        lane.write(*step)
    kept = [line for number, line in enumerate(base.splitlines(keepends=True)) if number not in drop]
    copied = [line for number, line in enumerate(lane.lines) if number in also]
    replacement = b"".join(kept + [line for line in copied if line != HEADER])
    found = merge(replacement, b"".join(lane.lines), format)
    _, kept_history = read(replacement, format)
    records, history = read(replacement + found.data, format)
    ids = [each.id for each in records if each.id]
    assert set(ids) == {each.id for each in read(replacement + b"".join(lane.lines), format)[0] if each.id}
    assert len(ids) == len(set(ids))
    assert sum(each.type == "session" for each in records) <= 1
    assert found.leaf == history.leaf
    if not lane.leaves or not (also or {lane.base_leaf, lane.names} & {kept_history.leaf, kept_history.onto}):
        assert set(path(replacement, format)) <= set(path(replacement + found.data, format))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(
    branch=STREAMS | st.binary(max_size=200),
    base=st.none() | st.text(max_size=3) | st.just("\ud83d"),
    header=st.booleans(),
    newline=st.booleans(),
    since=STREAMS,
)
def test_no_bytes_are_lost_or_make_it_raise(
    format: Format, branch: bytes, base: str | None, header: bool, newline: bool, since: bytes
) -> None:
    found = rebase(branch, format, leaf=base, header=header, newline=newline)
    lines, got = branch.split(b"\n"), found.data.split(b"\n")
    if found.data and not newline and not branch.startswith(b"\n"):
        assert got.pop(0) == b""
    if not found.dropped:
        assert [masked(line, format) for line in got] == [masked(line, format) for line in lines]
    assert found.clean == (found.data == branch)
    assert sum(bool(line.strip()) for line in lines) == found.records + found.unparsed + found.dropped
    merge(branch, since, format)
