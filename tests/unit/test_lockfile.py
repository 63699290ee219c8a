"""What a lock file says of its holder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.fence.lockfile import LockHolder, liveness, parse_holder


@pytest.mark.parametrize(
    ("content", "holder"),
    [
        (b'{"pid":4102,"createdAt":"2026-05-23T03:37:47.123Z","starttime":50798}', LockHolder(4102, 50798)),
        (b'{"pid":4102}', LockHolder(4102)),
        (b'{"pid":4102,"starttime":null}', LockHolder(4102)),
        (b'{"starttime":7}', LockHolder(None, 7)),
        (b'{"pid":0}', LockHolder()),
        (b'{"pid":-1}', LockHolder()),
        (b'{"pid":true}', LockHolder()),
        (b'{"pid":"4102"}', LockHolder()),
        (b'{"pid":4102', LockHolder()),
        (b"4102", LockHolder()),
        (b"[4102]", LockHolder()),
        (b"", LockHolder()),
        (b"\xff\xfe", LockHolder()),
    ],
)
def test_parse(content: bytes, holder: LockHolder) -> None:
    assert parse_holder(content) == holder


@given(st.binary(max_size=200))
def test_any_content_is_read(content: bytes) -> None:
    assert isinstance(parse_holder(content), LockHolder)


@pytest.mark.parametrize(
    ("holder", "start", "state"),
    [
        (LockHolder(), None, "unknown"),
        (LockHolder(None, 5), 5, "unknown"),
        (LockHolder(7), None, "dead"),
        (LockHolder(7), 99, "alive"),
        (LockHolder(7, 99), 99, "alive"),
        (LockHolder(7, 98), 99, "dead"),
    ],
)
def test_liveness(holder: LockHolder, start: int | None, state: str) -> None:
    assert liveness(holder, start) == state
