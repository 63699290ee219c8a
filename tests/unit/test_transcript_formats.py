"""Each agent's records: what is read of them, where the parent's value stands, and that nothing can break it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.policy import model
from guardfs.transcript.formats import CLAUDE_CODE, CODEX, FORMATS, GEMINI_CLI, LINES, PI, Format, Place
from guardfs.transcript.meta import INVALID, OVERSIZE, RecordMeta

CHAINED = [PI, CLAUDE_CODE]
KEYS = [
    "type", "id", "parentId", "message", "uuid", "parentUuid", "logicalParentUuid", "isSidechain", "payload",
    "ordinal", "role", "model", "provider", "targetId", "appendParentId", "appendMode", "$set", "$rewindTo",
    "sessionId", "projectHash", "x",
]  # fmt: skip
WORDS = ["session", "message", "leaf", "side", "session_meta", "$set", "a", "b", "", "é", "\ud83d", "\u2028"]
VALUES = st.recursive(
    st.sampled_from(WORDS)
    | st.text(max_size=5)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
PAIRS = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=8)


def line_of(**keys: Any) -> bytes:
    return json.dumps(keys).encode()


def text_of(pairs: list[tuple[str, Any]], spaced: bool, ascii_only: bool) -> bytes:
    """An object of *pairs*, duplicate keys and all."""
    space = " \t" if spaced else ""
    members = (
        f"{space}{json.dumps(key)}{space}:{space}{json.dumps(value, ensure_ascii=ascii_only)}{space}"
        for key, value in pairs
    )
    return ("{" + ",".join(members) + "}").encode("utf-8", "replace")


def test_every_format_of_the_policy_is_there() -> None:
    assert list(FORMATS) == list(model.Format.__args__)  # type: ignore[attr-defined]
    assert all(FORMATS[name].name == name for name in FORMATS)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(line=st.binary(max_size=60) | PAIRS.map(lambda pairs: text_of(pairs, False, False)))
def test_any_bytes_are_parsed_placed_and_searched_without_an_error(format: Format, line: bytes) -> None:
    record = format.parse(line)
    format.place(record)
    json.dumps(
        [record.type, record.role, record.id, record.parent, record.target], ensure_ascii=False
    ).encode()
    format.parent_span(line)
    for end in range(0, len(line), 7):
        assert format.peek(line[:end]).oversize


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "line", [b"", b"{", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"a":NaN}', b"\xef\xbb\xbf{}"]
)
def test_what_no_reader_can_parse_is_invalid(format: Format, line: bytes) -> None:
    assert format.parse(line) == INVALID
    assert format.parent_span(line) is None
    assert format.place(INVALID) is Place.APART


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(pairs=PAIRS, spaced=st.booleans(), ascii_only=st.booleans())
def test_the_fast_way_and_the_general_one_read_the_same(
    format: Format, pairs: list[tuple[str, Any]], spaced: bool, ascii_only: bool
) -> None:
    line = text_of(pairs, spaced, ascii_only)
    general = text_of(
        [*pairs, ("other", "\ud83d")], spaced, True
    )  # half a character: no strict decoder takes it
    assert format.parse(line) == format.parse(general)


def test_half_a_surrogate_pair_makes_no_record_invalid() -> None:
    line = rb'{"type":"message","id":"a1","parentId":"a0","message":{"role":"user","content":"cut \ud83d"}}'
    assert PI.parse(line) == RecordMeta("message", "user", "a1", "a0")


def test_broken_utf8_in_a_text_makes_no_record_invalid() -> None:
    assert PI.parse(b'{"id":"a1","message":{"role":"\xff","content":"\xe2"}}').id == "a1"


def test_a_number_of_any_length_makes_no_record_invalid() -> None:
    digits = b"1" * 5000
    assert PI.parse(b'{"id":"a","x":%b}' % digits) == RecordMeta(id="a")
    assert PI.parse(b'{"type":7,"id":"a","x":%b}' % digits) == RecordMeta(id="a")
    assert CODEX.parse(b'{"type":"x","ordinal":%b}' % digits) == RecordMeta("x")


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_nesting_without_end_is_no_error(format: Format) -> None:
    for line in (b'{"type":7,"x":' + b"[" * 100_000, b'{"x":"\\ud83d","y":' + b'{"z":' * 100_000):
        assert format.parse(line) == INVALID
        assert format.peek(line[:16384]).oversize


# ---- what each says


def test_pi_leaf_record_points_at_its_target() -> None:
    common = {"type": "leaf", "id": "l1", "parentId": "p", "timestamp": "t"}
    assert PI.parse(line_of(**common, targetId="x")) == RecordMeta("leaf", None, "l1", "p", target="x")
    assert PI.parse(line_of(**common, targetId=None)).target == ""
    moved = PI.parse(line_of(**common, targetId="x", appendParentId="y", appendMode="side"))
    assert (moved.target, moved.onto, PI.place(moved)) == ("x", "y", Place.LEAF)
    for broken in (
        line_of(**common),
        line_of(**common, targetId=3),
        line_of(**common, targetId="x", appendParentId=3),
    ):
        assert PI.parse(broken).target is None
        assert PI.place(PI.parse(broken)) is Place.APART


def test_pi_side_record_is_no_step() -> None:
    record = PI.parse(line_of(type="custom", id="s1", parentId="p", appendMode="side"))
    assert record.side and PI.place(record) is Place.SIDE
    assert PI.place(PI.parse(line_of(type="session", id="x"))) is Place.HEADER
    assert PI.place(PI.parse(line_of(type="message"))) is Place.APART


def test_claude_code_message_gives_uuid_parent_role_and_model() -> None:
    line = line_of(
        parentUuid="u0", isSidechain=False, sessionId="s", type="assistant",
        message={"model": "m", "role": "assistant", "content": []}, uuid="u1",
    )  # fmt: skip
    assert CLAUDE_CODE.parse(line) == RecordMeta("assistant", "assistant", "u1", "u0", model="m")


def test_claude_code_compaction_goes_on_from_its_logical_parent() -> None:
    line = line_of(
        parentUuid=None, logicalParentUuid="u7", type="system", subtype="compact_boundary", uuid="u8"
    )
    assert CLAUDE_CODE.parse(line).parent == "u7"
    assert CLAUDE_CODE.with_parent(line, "u9") == line.replace(b"u7", b"u9")
    assert CLAUDE_CODE.parse(line_of(parentUuid="u1", logicalParentUuid="u7", uuid="u8")).parent == "u1"


def test_claude_code_side_chains_and_summaries_are_no_steps() -> None:
    side = CLAUDE_CODE.parse(line_of(type="user", uuid="u1", parentUuid=None, isSidechain=True))
    assert CLAUDE_CODE.place(side) is Place.SIDE
    summary = CLAUDE_CODE.parse(line_of(type="summary", summary="text", leafUuid="u1"))
    assert summary == RecordMeta("summary") and CLAUDE_CODE.place(summary) is Place.APART


def test_codex_gives_type_role_and_ordinal() -> None:
    message = {"type": "message", "role": "user", "content": []}
    old = CODEX.parse(line_of(timestamp="t", type="response_item", payload=message))
    new = CODEX.parse(line_of(timestamp="t", ordinal=12, type="response_item", payload=message))
    assert old == RecordMeta("response_item", "user") and new == RecordMeta("response_item", "user", "12")
    assert CODEX.place(old) is CODEX.place(new) is Place.NODE
    assert CODEX.parse(line_of(type="event_msg", payload=None)) == RecordMeta("event_msg")
    assert (
        CODEX.parse(line_of(ordinal=True, type="x")).id
        is CODEX.parse(line_of(ordinal=-1, type="x")).id
        is None
    )
    header = CODEX.parse(
        line_of(timestamp="t", type="session_meta", payload={"id": "c1", "model_provider": "p"})
    )
    assert header == RecordMeta("session_meta", id="c1", provider="p")
    assert CODEX.place(header) is Place.HEADER
    assert CODEX.parent_span(line_of(parentId="x")) is None


def test_gemini_cli_tells_header_message_settings_and_rewind_apart() -> None:
    cases = [
        (line_of(sessionId="s", projectHash="h", kind="main"), RecordMeta("session", id="s"), Place.HEADER),
        (line_of(id="m", type="gemini", model="g"), RecordMeta("gemini", id="m", model="g"), Place.NODE),
        (line_of(**{"$set": {"summary": "text", "id": "no"}}), RecordMeta("$set"), Place.APART),
        (line_of(**{"$rewindTo": "m"}), RecordMeta("$rewindTo", target="m"), Place.REWIND),
    ]
    for line, record, place in cases:
        assert GEMINI_CLI.parse(line) == record
        assert GEMINI_CLI.place(record) is place


def test_any_json_is_a_line() -> None:
    assert LINES.parse(line_of(type="x", role="user", id="no")) == RecordMeta("x", "user")
    for line in (b"7", b'"text"', b"[1]", b"null"):
        assert LINES.parse(line) == RecordMeta()
    assert LINES.place(RecordMeta()) is Place.NODE


# ---- records that are too long


def test_the_first_bytes_of_a_long_record_tell_type_role_id_and_parent() -> None:
    head = (
        b'{"type":"message","id":"a1","parentId":"a0","message":{"role":"toolResult","content":"' + b"x" * 90
    )
    assert PI.peek(head) == RecordMeta("message", "toolResult", "a1", "a0", oversize=True)
    claude = b'{"parentUuid":"u0","isSidechain":true,"type":"user","message":{"role":"user","content":[{"x'
    assert CLAUDE_CODE.peek(claude) == RecordMeta("user", "user", None, "u0", oversize=True, side=True)
    codex = b'{"timestamp":"t","ordinal":3,"type":"response_item","payload":{"role":"user","content":['
    assert CODEX.peek(codex) == RecordMeta("response_item", "user", "3", oversize=True)
    assert GEMINI_CLI.peek(b'{"$set":{"messages":[{"id":"') == RecordMeta("$set", oversize=True)
    assert PI.peek(b'["x') == OVERSIZE


def test_what_is_cut_off_is_not_told() -> None:
    assert PI.peek(b'{"type":"mess') == OVERSIZE
    assert CODEX.peek(b'{"type":"x","ordinal":12') == RecordMeta("x", oversize=True)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(
    pairs=st.dictionaries(st.sampled_from(KEYS), st.text(max_size=9) | st.integers(0, 9)),
    spaced=st.booleans(),
)
def test_a_peek_at_a_whole_record_tells_what_parsing_tells(
    format: Format, pairs: dict[str, Any], spaced: bool
) -> None:
    line = text_of(list(pairs.items()), spaced, True)
    peeked, parsed = format.peek(line), format.parse(line)
    assert (peeked.type, peeked.id, peeked.parent, peeked.target) == (
        parsed.type, parsed.id, parsed.parent, parsed.target,
    )  # fmt: skip


# ---- the parent's place in the text


def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)  # of duplicates the last one, as JSON.parse and json.loads have it


@pytest.mark.parametrize("format", CHAINED, ids=lambda format: format.name)
@given(pairs=PAIRS, spaced=st.booleans(), ascii_only=st.booleans(), parent=st.none() | st.text(max_size=9))
def test_another_parent_changes_that_value_and_no_other_byte(
    format: Format, pairs: list[tuple[str, Any]], spaced: bool, ascii_only: bool, parent: str | None
) -> None:
    line = text_of(pairs, spaced, ascii_only)
    before = kept(json.loads(line, object_pairs_hook=list)) if pairs else {}
    keys = [key.decode() for key in format.parent_keys if key.decode() in before]
    span = format.parent_span(line)
    if not keys:
        assert span is None and format.with_parent(line, parent) == line
        return
    assert span is not None
    key = next((key for key in keys if isinstance(before[key], str)), keys[0])
    assert json.loads(line[span[0] : span[1]], object_pairs_hook=list) == before[key]
    after = format.with_parent(line, parent)
    assert after[: span[0]] == line[: span[0]]
    assert after.endswith(line[span[1] :])
    changed = json.loads(after, object_pairs_hook=list)
    assert kept(changed) == {**before, key: parent}
    assert [pair[0] for pair in changed] == [pair[0] for pair in json.loads(line, object_pairs_hook=list)]


@pytest.mark.parametrize(
    "value", ["null", '"a0"', "7", '{"parentId":"x"}', '["a\\"]"]', '"\\\\"', '"\\"}{"', "true", "-1.5e3"]
)
@pytest.mark.parametrize("key", ['"parentId"', '"parent\\u0049d"', '"\\u0070arentId"'])
def test_the_parent_is_found_whatever_its_value_and_however_its_key_is_written(key: str, value: str) -> None:
    for text in (
        '{"message":{"parentId":"in","x":["\\"parentId\\":1"]},%s:%s}',
        '{ %s : %s , "x" : "}\\\\" }\r',
        '{"parentId":"first",%s:%s,"id":"é\\u2028"}',
    ):
        line = (text % (key, value)).encode()
        span = PI.parent_span(line)
        assert span is not None and line[span[0] : span[1]].decode() == value
        assert PI.parse(PI.with_parent(line, "new")).parent == "new"
        assert PI.with_parent(PI.with_parent(line, "new"), None) == (text % (key, "null")).encode()


def test_a_parent_in_a_text_or_a_nested_object_is_not_the_parent() -> None:
    for line in (
        rb'{"id":"a","message":{"parentId":"x"}}',
        rb'{"id":"a","text":"\"parentId\":\"x\""}',
        rb'{"id":"a","x":[{"parentId":"x"}]}',
        rb'{"id":"a","ParentId":"x","parentid":"y"}',
    ):
        assert PI.parent_span(line) is None
        assert PI.with_parent(line, "new") == line


def test_a_leaf_record_keeps_its_target_when_its_parent_changes() -> None:
    line = line_of(type="leaf", id="l", parentId="p", targetId="x", appendParentId="y")
    assert PI.parse(PI.with_parent(line, "q")) == RecordMeta("leaf", None, "l", "q", target="x", onto="y")


def test_a_record_of_megabytes_is_changed_in_place() -> None:
    filler = 'a\\"{[' * 400_000
    line = line_of(type="message", message={"content": filler, "list": [[{}]] * 20_000}, parentId="p", id="i")
    assert PI.with_parent(line, "q") == line.replace(b'"parentId": "p"', b'"parentId": "q"')
