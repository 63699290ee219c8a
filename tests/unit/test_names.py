"""Which names are transcripts, which are locks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.audit.event import Kind
from guardfs.policy.model import Transcripts
from guardfs.transcript.names import NameRules

OPENCLAW = Transcripts(exclude=("*.trajectory.jsonl", "*.checkpoint.*.jsonl"))
UUID = b"fb87a1b2-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (UUID + b".jsonl", Kind.TRANSCRIPT),
        (UUID + b"-topic-7.jsonl", Kind.TRANSCRIPT),
        (b"2026-05-23T03-37-47_" + UUID + b".jsonl", Kind.TRANSCRIPT),
        (UUID + b".jsonl.lock", Kind.LOCK),
        (UUID + b".trajectory.jsonl", Kind.OTHER),
        (UUID + b".trajectory.jsonl.lock", Kind.OTHER),
        (UUID + b".checkpoint." + UUID + b".jsonl", Kind.OTHER),
        (UUID + b".trajectory-path.json", Kind.OTHER),
        (UUID + b".jsonl.reset.2026-05-23", Kind.OTHER),
        (UUID + b".jsonl.deleted.2026-05-23", Kind.OTHER),
        (UUID + b".jsonl.bak-12-2026", Kind.OTHER),
        (b"sessions.json", Kind.OTHER),
        (b"sessions.json.lock", Kind.OTHER),
        (b".fs-safe-replace.12.x.tmp", Kind.OTHER),
        (b".lock", Kind.OTHER),
        (b"\xff\xfe.jsonl", Kind.TRANSCRIPT),
        (b"a\nb.jsonl", Kind.TRANSCRIPT),
        (b"a.jsonl\n", Kind.OTHER),
        (b"A.JSONL", Kind.OTHER),
        (b"", Kind.OTHER),
    ],
)
def test_names_of_a_sessions_directory(name: bytes, kind: Kind) -> None:
    rules = NameRules(OPENCLAW)
    assert rules.kind(name) is kind
    assert rules.kind(name) is kind  # from memory


def test_other_rules() -> None:
    rules = NameRules(Transcripts(("rollout-*.jsonl", "*.chat"), (), lock="locks-{transcript}.lck"))
    assert rules.kind(b"rollout-1.jsonl") is Kind.TRANSCRIPT
    assert rules.kind(b"x.chat") is Kind.TRANSCRIPT
    assert rules.kind(b"x.jsonl") is Kind.OTHER
    assert rules.kind(b"locks-x.chat.lck") is Kind.LOCK
    assert rules.transcript_of(b"locks-x.chat.lck") == b"x.chat"
    assert NameRules(Transcripts((), ())).kind(b"x.jsonl") is Kind.OTHER


def test_an_agent_without_lock_files() -> None:
    rules = NameRules(Transcripts(lock=""))
    assert rules.kind(b"x.jsonl") is Kind.TRANSCRIPT
    assert rules.kind(b"x.jsonl.lock") is Kind.OTHER
    assert rules.transcript_of(b"x.jsonl") is None


def test_memory_is_bounded() -> None:
    rules = NameRules(OPENCLAW)
    for number in range(20_000):
        assert rules.kind(b"%d.jsonl" % number) is Kind.TRANSCRIPT
    assert len(rules._known) <= 8192


@given(st.binary(max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_a_lock_belongs_to_exactly_the_transcripts(name: bytes) -> None:
    rules = NameRules(OPENCLAW)
    transcript = rules.kind(name) is Kind.TRANSCRIPT
    assert (rules.kind(name + b".lock") is Kind.LOCK) == transcript
    assert rules.transcript_of(name + b".lock") == (name if transcript else None)
