"""Any bytes, and any mutated policy, give a policy or problems with words, never another exception."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from guardfs.policy.examine import examine
from guardfs.policy.load import locate as place_of
from guardfs.policy.load import open_policy, shipped

SEEDS = [open_policy(place_of(name)).data for name, _ in shipped()]

PIECES = [
    b"[",
    b"]",
    b"[[",
    b'"',
    b"'",
    b'"""',
    b"=",
    b".",
    b"\n",
    b"#",
    b"{",
    b"}",
    b",",
    b"\\",
    b"\xff",
    b"\0",
    b"\r",
    b"1",
    b"9" * 70,
    b"true",
    b"1979-05-27T07:32:00Z",
    b"[[rules]]\n",
    b"[[lanes]]\n",
    b"lane",
    b"name",
    b"within",
    b"\xc3\xa9",
    b"[" * 300,
    b"a." * 300,
    b"[z-a]",
    b"*",
    b"0x",
    b"inf",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
]


def give_a_policy_or_problems(data: bytes) -> None:
    found = examine(data)
    errors = [problem for problem in found.problems if problem.severity == "error"]
    assert (found.policy is None) == bool(errors)
    lines = data.count(b"\n") + 1
    for problem in found.problems:
        assert problem.what and problem.text("p").isprintable()
        assert problem.line is None or (1 <= problem.line <= lines and (problem.column or 0) >= 1)


@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    give_a_policy_or_problems(data)


@given(st.lists(st.sampled_from(PIECES), max_size=20))
def test_any_pieces_of_toml(pieces: list[bytes]) -> None:
    give_a_policy_or_problems(b"".join(pieces))


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(PIECES)), min_size=1, max_size=4),
)
def test_any_mutated_policy(seed: bytes, changes: list[tuple[float, int, bytes]]) -> None:
    for where, length, piece in changes:
        at = int(where * len(seed))
        seed = seed[:at] + piece + seed[at + length :]
    give_a_policy_or_problems(seed)
