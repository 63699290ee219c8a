"""Whose transcript is whose: OpenClaw's sessions.json, whole, broken and huge."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.lanes import registry
from guardfs.lanes.registry import find_key, read_registry

ID = "c9e360ca-52a1-4d38-9d9f-3f2f3a1c6e11"
OTHER = "0b1f7c1e-0a6b-4f0e-8d53-6f1ce2f8a001"
KEY = "agent:main:feishu:direct:ou_1"


def written(store: object) -> bytes:
    """As OpenClaw writes it: indented by two spaces, no newline at the end."""
    return json.dumps(store, indent=2, ensure_ascii=False).encode()


def entry(session: str, updated: int = 1795396515536, **more: Any) -> dict[str, Any]:
    """An entry with the bulk that real ones have."""
    skills = [{"name": f"skill-{i}", "primaryEnv": 'a "quoted"\n  "word"'} for i in range(20)]
    return {"sessionId": session, "updatedAt": updated, "skillsSnapshot": {"skills": skills}} | more


def test_a_session_id_names_its_transcript() -> None:
    assert read_registry(written({KEY: entry(ID)})) == {f"{ID}.jsonl".encode(): KEY}


def test_a_session_file_counts_by_its_name_and_beside_the_id() -> None:
    file = f"/home/a/.openclaw/agents/main/sessions/2026-05-23T03-37-47-000Z_{ID}.jsonl"
    names = read_registry(written({KEY: entry(OTHER, sessionFile=file)}))
    assert names == {f"2026-05-23T03-37-47-000Z_{ID}.jsonl".encode(): KEY, f"{OTHER}.jsonl".encode(): KEY}


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}.jsonl",
        f"{ID}.jsonl.lock",
        f"{ID}.jsonl.reset.2026-05-23T03-37-47.123Z",
        f"{ID}.jsonl.deleted.2026-05-23T03-37-47.123Z",
        f"{ID}.jsonl.bak.2026-05-23T03-37-47.123Z",
        f"{ID}.jsonl.bak-4102-1795396515536",
        f"{ID}-topic-5.jsonl",
        f"{ID}-topic-5.jsonl.lock",
        f"{ID}-topic-a-topic-b.jsonl.reset.2026-05-23T03-37-47.123Z",
        f"{ID}.trajectory.jsonl",
        f"{ID}.trajectory-path.json",
        f"{ID}.checkpoint.{OTHER}.jsonl",
        f"2026-05-23T03-37-47-000Z_{ID}.jsonl",
    ],
)
def test_what_is_named_after_a_transcript_belongs_to_its_session(name: str) -> None:
    names = {f"{ID}.jsonl".encode(): KEY, f"{ID}-topic-a.jsonl".encode(): KEY}
    assert find_key(name.encode(), names) == KEY


@pytest.mark.parametrize(
    "name",
    [
        "sessions.json",
        "",
        ".jsonl",
        f"{OTHER}.jsonl",
        f"{ID}",
        f"{ID}.json",
        "\udcff.jsonl",
        "-topic-5.jsonl",
    ],
)
def test_other_names_belong_to_nobody(name: str) -> None:
    assert find_key(name.encode("utf-8", "surrogateescape"), {f"{ID}.jsonl".encode(): KEY}) is None


def test_an_exact_name_comes_before_one_that_is_derived() -> None:
    names = {f"{ID}.jsonl".encode(): "plain", f"{ID}-topic-5.jsonl".encode(): "topic"}
    assert find_key(f"{ID}-topic-5.jsonl.lock".encode(), names) == "topic"
    assert find_key(f"{ID}-topic-6.jsonl.lock".encode(), names) == "plain"


def test_of_two_keys_for_one_transcript_the_later_updated_has_it() -> None:
    """A cron job and its run are such a pair."""
    for old, new in (("a", "b"), ("b", "a")):
        for order in ((old, new), (new, old)):
            times = {old: 1, new: 2}
            store = {key: entry(ID, times[key]) for key in order}
            assert read_registry(written(store)) == {f"{ID}.jsonl".encode(): new}
    for order in (("a", "b"), ("b", "a")):
        assert read_registry(written({key: entry(ID) for key in order})) == {f"{ID}.jsonl".encode(): "b"}


@pytest.mark.parametrize(
    "broken",
    [
        None,
        7,
        "text",
        [],
        {},
        {"sessionId": 7},
        {"sessionId": ""},
        {"sessionId": "a/b"},
        {"sessionFile": ""},
        {"sessionFile": "/a/"},
        {"sessionFile": ".."},
        {"sessionId": None},
    ],
)
def test_a_broken_entry_is_left_out_and_its_neighbours_stay(broken: object) -> None:
    store = {"a": entry(ID), "broken": broken, "b": entry(OTHER)}
    assert read_registry(written(store)) == {f"{ID}.jsonl".encode(): "a", f"{OTHER}.jsonl".encode(): "b"}


def test_what_is_good_in_an_entry_counts_although_the_rest_is_not() -> None:
    store = {KEY: {"sessionId": ID, "sessionFile": 7, "updatedAt": "yesterday"}}
    assert read_registry(written(store)) == {f"{ID}.jsonl".encode(): KEY}


def test_a_key_too_long_for_an_event_is_left_out() -> None:
    store = {"k" * 513: entry(ID), "k" * 512: entry(OTHER)}
    assert read_registry(written(store)) == {f"{OTHER}.jsonl".encode(): "k" * 512}


@pytest.mark.parametrize(
    "data", [b"", b" ", b"[]", b"7", b"null", b"{", b"\xff", b"{}x", b"[" * 100_000, b"\0" * 99]
)
def test_what_is_no_whole_object_is_none(data: bytes) -> None:
    assert read_registry(data) is None


def test_an_empty_registry_has_no_sessions() -> None:
    assert read_registry(b"{}") == {}
    assert read_registry(b"{}\n") == {}


def large(count: int = 300) -> dict[str, Any]:
    return {f"agent:main:{i}": entry(f"{i:08x}-0000-4000-8000-000000000000", i) for i in range(count)}


def test_a_large_registry_is_read_in_pieces_with_the_same_result() -> None:
    store = large()
    data = written(store)
    assert len(data) > 4 * registry.PIECE
    pauses: list[None] = []
    names = read_registry(data, lambda: pauses.append(None))
    assert len(pauses) >= 4
    assert names == {f"{value['sessionId']}.jsonl".encode(): key for key, value in store.items()}
    assert read_registry(b"\n " + data + b" \n") == names
    assert read_registry(json.dumps(store).encode()) == names  # in one line, so in one go


@pytest.mark.parametrize("cut", [1, 2, 3, 1000, registry.PIECE, registry.PIECE + 1, 150_000])
def test_a_large_registry_that_is_half_written_is_none(cut: int) -> None:
    data = written(large())
    assert read_registry(data[:-cut]) is None
    assert read_registry(data[:-cut] + b"\0" * cut) is None
    if cut > 3:  # else no entry is lost
        assert read_registry(data[:-cut] + b"\n}") is None


def test_a_piece_without_the_comma_before_the_next_is_no_object() -> None:
    data = written(large())
    at = data.find(b'\n  "', registry.PIECE + 1)  # where the first piece ends
    assert data[at - 1 : at] == b","
    assert read_registry(data[: at - 1] + b" " + data[at:]) is None


def test_a_huge_registry_in_one_line_is_not_read() -> None:
    line = b'{"a":{"sessionId":"x"},"b":"%b"}' % (b"x" * registry.MAX_WHOLE)
    assert read_registry(line) is None


_text = st.text(max_size=8)
_value = st.recursive(
    st.none() | st.booleans() | st.integers() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)
_entry = st.fixed_dictionaries(
    {},
    optional={
        "sessionId": _text | _value,
        "sessionFile": _text | _value,
        "updatedAt": st.integers(),
        "x": _value,
    },
)


@given(st.dictionaries(_text, _entry | _value, max_size=12), st.integers(1, 80))
def test_pieces_of_any_size_give_what_the_whole_gives(store: dict[str, Any], piece: int) -> None:
    whole = read_registry(json.dumps(store).encode())
    assert whole is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "PIECE", piece)
        assert read_registry(json.dumps(store, indent=2).encode()) == whole


@given(st.binary(max_size=300), st.integers(1, 80))
def test_any_bytes_give_an_answer(data: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "PIECE", piece)
        for tried in (data, b'{\n  "' + data + b"\n}", b'{\n  "a": {"sessionId": "' + data + b'"}\n}'):
            names = read_registry(tried)
            assert names is None or all(isinstance(name, bytes) for name in names)
    find_key(data, names or {})
