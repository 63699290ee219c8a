"""`openclaw.toml` against every operation of the recorded traces of a real gateway.

The expected numbers were not made by running the policy. They were counted in the raw traces with jq, in
`tests/traces`, with TR standing for ``(.path|test("^[0-9a-f-]+[.]jsonl$"))``:

* registry: ``select(.path|test("^sessions.json$|fs-safe-replace"))``
* trajectory, checkpoint: ``select(.path|test("trajectory"))``, ``select(.path|test("checkpoint"))``
* reset: ``select(.op=="rename" and (.to|test("[.](reset|deleted)[.]")))``; backup: the same with ``[.]bak[.]``
* mirror: ``select(TR and .op=="write" and .thread!="main")``; each of the five has an id longer than eight characters
* maintenance: ``select(TR and .op=="open" and .thread!="main" and (.flags|index("trunc")))``
* compaction: ``select(.op=="write" and ((.head//"")|test("\\"type\\":\\"compaction\\"")))``
* the main thread's writes: ``select(TR and .op=="write" and .thread=="main")``: 8, 15, 16. Which of them lie between
  the making and the removal of the transcript's lock file was read off the listing around each. In two-turns all eight
  do. In inject-compact-new-reset-delete three lie outside: line 112 is a message (unlocked), 1136 and 1877 are
  headers; one inside is the compaction, and 11 are the run's. In tool-inject-absent-new two lie outside, 1049 and 2136,
  both headers; 14 are the run's.
* header: those headers, and the opens that make their files (lines 111, 1135, 1876; 1048, 2135: ``trunc``, main thread,
  no lock).
* run: those writes, and the opens inside a lock that make or empty a transcript: 354 of two-turns, 295 of
  inject-compact-new-reset-delete (``trunc``), 644 and 2139 of tool-inject-absent-new (2139 after the rename of 2026).
* gateway: what remains: looks, lock files, the directory.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from guardfs.policy.decide import Decider
from guardfs.policy.facts import Facts
from guardfs.policy.load import load
from guardfs.policy.model import Verdict
from tests.support.traces import NAMES, Step, no_ids, raw, record_of, steps

TWO, INJECT, TOOL = NAMES

COUNTS = {
    TWO: {"registry": 166, "trajectory": 86, "run": 9, "": 830},
    INJECT: {
        "registry": 383,
        "trajectory": 86,
        "checkpoint": 8,
        "reset": 3,
        "backup": 1,
        "compaction": 1,
        "mirror": 2,
        "maintenance": 1,
        "header": 5,
        "unlocked": 1,
        "run": 12,
        "": 1504,
    },
    TOOL: {"registry": 644, "trajectory": 117, "reset": 1, "mirror": 3, "header": 4, "run": 16, "": 2183},
}
"""Lane within the gateway -> operations."""

TELLING = [
    (TWO, 159, "gateway", "the lock file is made by a pool thread, before anybody can know for what"),
    (TWO, 163, "gateway", "the fence's check is a look"),
    (TWO, 354, "gateway:run", "the first flush makes the transcript inside the lock"),
    (TWO, 355, "gateway:run", "and writes the header itself"),
    (TWO, 358, "gateway:run", "a model_change inside the lock is the run's, no control record"),
    (TWO, 889, "gateway:run", "an answer"),
    (INJECT, 27, "gateway:mirror", "chat.inject; the trace has cut off the role"),
    (INJECT, 110, "gateway:backup", "sessions.compact {maxLines}"),
    (INJECT, 111, "gateway:header", "its new file"),
    (INJECT, 112, "gateway:unlocked", "what it kept: messages, without lock and without header"),
    (INJECT, 298, "gateway:maintenance", "a file with nothing but a header is emptied"),
    (INJECT, 913, "gateway:checkpoint", "the copy before a compaction by the model"),
    (INJECT, 923, "gateway:compaction", "its summary"),
    (INJECT, 1054, "gateway:reset", "/new"),
    (INJECT, 1135, "gateway:header", "the next session's file"),
    (INJECT, 1136, "gateway:header", "its header, outside any lock"),
    (INJECT, 1872, "gateway:reset", "sessions.reset"),
    (INJECT, 1970, "gateway:reset", "sessions.delete"),
    (TOOL, 782, "gateway:mirror", "chat.inject while a reply streams"),
    (TOOL, 1048, "gateway:header", "chat.inject makes the transcript that the run relies on to be absent"),
    (TOOL, 1049, "gateway:header", "and its header"),
    (TOOL, 1158, "gateway:mirror", "and its record"),
    (TOOL, 2026, "gateway:reset", "/new, while the run holds the lock"),
    (TOOL, 2140, "gateway:run", "the run goes on in a new file of the old name"),
    (TOOL, 2263, "gateway:mirror", "the greeting after /new"),
]


@pytest.fixture(scope="module")
def decider() -> Decider:
    return Decider(load("openclaw").policy, no_ids)


@pytest.fixture(scope="module")
def traces(decider: Decider) -> dict[str, list[Step]]:
    return {name: list(steps(name, decider.policy.transcripts)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_of_a_trace_is_in_its_lane(
    name: str, decider: Decider, traces: dict[str, list[Step]]
) -> None:
    found = Counter(decider.decide(step.facts).lane for step in traces[name])
    expected = {f"gateway:{lane}" if lane else "gateway": count for lane, count in COUNTS[name].items()}
    assert found == expected
    assert found.total() == len(raw(name))


@pytest.mark.parametrize(
    ("name", "line", "lane", "what"), TELLING, ids=[f"{name}-{line}" for name, line, _, _ in TELLING]
)
def test_telling_operations(
    name: str, line: int, lane: str, what: str, decider: Decider, traces: dict[str, list[Step]]
) -> None:
    assert decider.decide(traces[name][line - 1].facts).lane == lane, what


@pytest.mark.parametrize("name", NAMES)
def test_without_a_fence_nothing_is_held(name: str, decider: Decider, traces: dict[str, list[Step]]) -> None:
    assert {decider.decide(step.facts).verdict for step in traces[name]} == {"allow"}


def test_with_another_s_fence_open_every_change_of_a_transcript_is_staged_and_nothing_else(
    decider: Decider, traces: dict[str, list[Step]]
) -> None:
    """Whoever's fence it is in truth: this asks only what the rules say of each call."""
    for name in NAMES:
        for line, operation, facts in traces[name]:
            if facts.path == b".":
                continue  # the directory is no transcript: no fence is ever open on it
            fenced = decider.decide(_with_fence(facts))
            changes = facts.file == "transcript" and facts.operation != "look"
            expected: Verdict = "stage" if changes else "allow"
            assert fenced.verdict == expected, (name, line, operation, fenced)


def _with_fence(facts: Facts) -> Facts:
    return msgspec.structs.replace(facts, fence="other")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_lanes_rest_on_is_in_the_traces(name: str, traces: dict[str, list[Step]]) -> None:
    """If one of these failed, the trace would contradict the page of field facts, or the reader of traces be wrong."""
    for line, operation, facts in traces[name]:
        if facts.file == "lock":
            assert not facts.writer.main, f"line {line}: lock files are made and removed by pool threads"
        if facts.operation == "rename" and facts.file == "transcript":
            assert facts.writer.main, f"line {line}: transcripts are renamed by the main thread"
        if facts.operation == "create" and facts.file == "lock":
            assert facts.lock == "free", f"line {line}: a lock is made where there is none"
        if facts.file == "transcript" and facts.operation == "append" and not facts.writer.main:
            assert facts.lock == "own", f"line {line}: mirrors honour the lock"
            assert facts.record and len(facts.record.id or "") == 36, f"line {line}: and have UUIDs"
        if facts.file == "transcript" and facts.record and facts.record.type == "message":
            assert facts.writer.main == (len(facts.record.id or "") == 8), f"line {line}: {operation}"


def test_a_record_is_read_from_its_first_bytes() -> None:
    whole = '{"type":"message","id":"0f39d300","parentId":"062d4eae","timestamp":"x","message":{"role":"user","content'
    record = record_of(whole)
    assert record is not None
    assert (record.type, record.role, record.id, record.parent) == ("message", "user", "0f39d300", "062d4eae")
    cut = record_of(
        '{"type":"message","id":"bf091052..","parentId":"653af451","timestamp":"2026-11-23T01:16:25.695'
    )
    assert cut is not None
    assert (cut.role, cut.id) == (None, "bf091052-0000-0000-0000-000000000000")
    custom = record_of('{"type":"custom","customType":"model-snapshot","data":{"timestamp":17},"id":"d19')
    assert custom is not None
    assert (custom.type, custom.id) == ("custom", None)
    assert record_of("") is None
