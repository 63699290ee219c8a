"""The words of records of the formats that there are."""

from __future__ import annotations

import json

import pytest

from guardfs.transcript.text import MAX_TEXT, text_of


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"type": "message", "message": {"role": "user", "content": "hello\n  there"}}, "hello there"),
        ({"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}, "a b"),
        ({"message": {"content": [{"type": "toolCall", "name": "exec", "arguments": {"c": "x"}}]}}, "[exec]"),
        ({"message": {"role": "toolResult", "content": [{"type": "text", "text": "out"}]}}, "out"),
        (
            {
                "type": "assistant",
                "message": {"content": [{"type": "tool_use", "name": "Bash", "input": {}}]},
            },
            "[Bash]",
        ),
        ({"type": "response_item", "payload": {"type": "message", "content": [{"text": "codex"}]}}, "codex"),
        ({"type": "event_msg", "payload": {"type": "user_message", "message": "codex"}}, "codex"),
        ({"id": "1", "type": "gemini", "content": "gemini"}, "gemini"),
        ({"role": "user", "text": "a line"}, "a line"),
        ({"type": "session", "id": "s"}, ""),
        ({"message": {"content": 7}}, ""),
        ([1], ""),
    ],
)
def test_words(record: object, text: str) -> None:
    assert text_of(json.dumps(record).encode()) == text


@pytest.mark.parametrize("line", [b"", b"garbage", b"\xff\xfe", b"[" * 100_000, b'{"message":'])
def test_what_is_no_record_has_no_words(line: bytes) -> None:
    assert text_of(line) == ""


def test_long_and_deep_ones_are_cut() -> None:
    long = text_of(json.dumps({"content": "ä" * 10_000}).encode())
    assert len(long) == MAX_TEXT and long.endswith("…")
    many = text_of(json.dumps({"content": [{"text": "word"}] * 10_000}).encode())
    assert len(many) <= MAX_TEXT
    deep: object = "at the bottom"
    for _ in range(50):
        deep = {"content": deep}
    assert text_of(json.dumps(deep).encode()) == ""
