"""Fencing tokens only grow, also when there are more transcripts than are kept."""

from __future__ import annotations

from guardfs.fence.tokens import Tokens


def test_each_transcript_counts_for_itself() -> None:
    tokens = Tokens()
    assert [tokens.next(b"a"), tokens.next(b"a"), tokens.next(b"b")] == [1, 2, 1]
    assert tokens.last(b"a") == 2


def test_restoring_never_takes_a_token_back() -> None:
    tokens = Tokens()
    for _ in range(5):
        tokens.next(b"a")
    tokens.restore({b"a": 3, b"b": 9}, floor=4)
    assert (tokens.next(b"a"), tokens.next(b"b"), tokens.next(b"c")) == (6, 10, 5)


def test_of_too_many_transcripts_the_oldest_share_a_floor() -> None:
    tokens = Tokens(limit=10)
    given: dict[bytes, int] = {}
    for count in range(1000):
        name = b"%d" % (count * 7 % 23)
        token = tokens.next(name)
        assert token > given.get(name, 0)
        given[name] = token
    assert len(tokens) <= 10
