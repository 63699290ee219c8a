"""Facts and a policy give a lane, a rule and a verdict."""

from __future__ import annotations

import errno
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardfs.lanes.writer import Process, Writer
from guardfs.policy import decide as module
from guardfs.policy.decide import Decider
from guardfs.policy.facts import Facts
from guardfs.policy.globs import Globs
from guardfs.policy.model import Policy
from guardfs.transcript.records import INVALID, OVERSIZE, PART, RecordMeta
from tests.unit.decide_tools import (
    GATEWAY,
    NODE,
    OUTSIDE,
    POOL,
    PYTHON,
    SCRIPT,
    UUID,
    any_facts,
    facts,
    ids,
    plain_decide,
    policies,
    policy,
)


def decide(text: dict[str, Any], found: Facts) -> tuple[str, str]:
    decision = Decider(policy(text), ids).decide(found)
    return decision.lane, decision.rule


def holds(when: dict[str, Any], found: Facts) -> bool:
    """Whether a rule with these conditions matches."""
    return decide({"rules": [{"name": "it", "verdict": "stage", "when": when}]}, found)[1] == "it"


def wears(writer: Writer, **changed: Any) -> Writer:
    assert writer.process is not None
    return msgspec.structs.replace(writer, process=msgspec.structs.replace(writer.process, **changed))


# ---- against a decider as plain as can be


@settings(max_examples=200, deadline=None)
@given(policies(), st.lists(any_facts, min_size=1, max_size=12))
def test_it_decides_as_the_model_says_and_memory_changes_nothing(policy: Policy, many: list[Facts]) -> None:
    used = Decider(policy, ids)
    for found in [*many, *many]:
        decision = used.decide(found)
        said = (decision.lane, decision.evidence, decision.rule, decision.verdict)
        assert said == plain_decide(policy, found)
        fresh = Decider(policy, ids).decide(found)
        assert msgspec.structs.astuple(fresh) == msgspec.structs.astuple(decision)


@settings(max_examples=60, deadline=None)
@given(policies(), st.lists(any_facts, min_size=3, max_size=12))
def test_tables_that_overflow_all_the_time_change_nothing(policy: Policy, many: list[Facts]) -> None:
    patch = pytest.MonkeyPatch()
    with patch.context() as tight:
        for name in ("WRITERS", "PATHS", "NAMES", "DECISIONS"):
            tight.setattr(module, name, 2)
        used = Decider(policy, ids)
        for found in [*many, *many]:
            decision = used.decide(found)
            said = (decision.lane, decision.evidence, decision.rule, decision.verdict)
            assert said == plain_decide(policy, found)


_characters = st.text(alphabet="ab*?[]!-\n./", max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(_characters, max_size=30), st.lists(st.text(alphabet="ab[]!-\n./", max_size=12), max_size=8))
def test_many_globs_at_once_match_as_each_alone(globs: list[str], texts: list[str]) -> None:
    table = Globs()
    for place, glob in enumerate(globs):
        table.add(glob, 1 << place)
    table.freeze()
    for text in texts:
        want = sum(1 << place for place, glob in enumerate(globs) if fnmatchcase(text, glob))
        assert table.of(text) == want


def test_a_text_in_which_many_of_the_sought_texts_occur_many_times() -> None:
    globs = [f"*{char}{number}*" for char in "ab" for number in range(10)] + [
        "*a1?b2*",
        "*a*b9",
        "*1a*",
        "*a1a*",
        "*a1a0b*",
    ]
    table = Globs()
    for place, glob in enumerate(globs):
        table.add(glob, 1 << place)
    table.freeze()
    for text in ("a1" * 50, "a1-b2" * 5, "a0a1a2a3a4a5a6a7a8a9b9", "a1", "xa1xb2x", "", "ab9", "a1a0b3"):
        assert table.of(text) == sum(1 << at for at, glob in enumerate(globs) if fnmatchcase(text, glob))


def test_globs_that_begin_alike_for_long() -> None:
    globs = [f"*{'a' * length}*" for length in range(1, 200)] + [f"*{'b' * 900}{end}*" for end in "cde"]
    table = Globs()
    for place, glob in enumerate(globs):
        table.add(glob, 1 << place)
    table.freeze()
    for text in ("a" * 150, "ca" * 9, "b" * 900 + "d", "b" * 901, "aab", "x"):
        assert table.of(text) == sum(1 << at for at, glob in enumerate(globs) if fnmatchcase(text, glob))


# ---- lanes

LANES: list[dict[str, Any]] = [
    {"name": "gateway", "process": {"exe": "*/node", "args": "openclaw*"}},
    {"name": "mirror", "within": "gateway", "process": {"main": False}, "record": {"id": "uuid"}},
    {"name": "deep", "within": "gateway:mirror", "operation": "append"},
    {"name": "run", "within": "gateway", "process": {"main": True}},
    {"name": "second", "process": {"exe": "*/node"}},
]


def test_a_lane_is_the_first_match_and_then_the_first_match_within() -> None:
    decider = Decider(policy({"lanes": LANES}), ids)
    mirror = decider.decide(facts(POOL, record=RecordMeta(id=UUID)))
    assert mirror.lane == "gateway:mirror:deep"
    assert mirror.evidence == ("process.exe", "process.args", "process.main", "record.id", "operation")
    assert decider.decide(facts(GATEWAY)).lane == "gateway:run"
    assert decider.decide(facts(POOL)).lane == "gateway"
    assert decider.decide(facts(wears(GATEWAY, args=("node", "x.js")))).lane == "second"
    assert decider.lane_names == ["gateway", "gateway:mirror", "gateway:mirror:deep", "gateway:run", "second"]
    assert decider.rules == ["last"]


def test_a_writer_that_no_lane_matches_is_called_by_its_program() -> None:
    decision = Decider(policy({"lanes": LANES}), ids).decide(facts(SCRIPT))
    assert (decision.lane, decision.evidence) == ("backup", ("label",))
    assert Decider(policy({"lanes": LANES}), ids).decide(facts(OUTSIDE)).lane == "outside"


@pytest.mark.parametrize(
    ("script", "lane"),
    [
        ("gateway.py", "exe:gateway"),
        ("gateway:run", "exe:gateway:run"),
        ("gateway-2.py", "gateway-2"),
        ("run.py", "run"),
    ],
)
def test_a_program_cannot_pose_as_a_declared_lane_by_its_name(script: str, lane: str) -> None:
    text = {
        "lanes": LANES,
        "rules": [{"name": "gateway's", "verdict": "stage", "when": {"lane": ["gateway", "gateway:*"]}}],
    }
    assert decide(text, facts(wears(SCRIPT, args=("python3", f"/tmp/{script}")))) == (lane, "last")


def test_the_mark_of_such_a_program_is_no_declared_lane_either() -> None:
    lanes = [{"name": "exe", "process": {"exe": "/none"}}, {"name": "backup", "process": {"exe": "/none"}}]
    assert decide({"lanes": lanes}, facts(SCRIPT))[0] == "_exe:backup"


# ---- claims

CLAIMS = {"environment": ["job-*"], "attribute": ["tool-*", "gateway", "exited"]}


@pytest.mark.parametrize(
    ("environment", "attribute", "lane", "evidence"),
    [
        ("job-1", None, "job-1", "claim.environment"),
        (None, "tool-1", "tool-1", "claim.attribute"),
        ("job-1", "tool-1", "tool-1", "claim.attribute"),
        ("job-1", "job-1", "job-1", "claim.environment"),  # attributes of this name are not believed
        ("tool-1", None, "backup", "label"),
        ("job-1:inner", None, "backup", "label"),
        ("job-" + "x" * 64, None, "backup", "label"),
        (None, "gateway", "backup", "label"),
        (None, "exited", "backup", "label"),
    ],
)
def test_a_claim_names_a_lane_where_it_is_believed_and_no_evidence_speaks(
    environment: str | None, attribute: str | None, lane: str, evidence: str
) -> None:
    decider = Decider(policy({"lanes": LANES, "claims": CLAIMS}), ids)
    decision = decider.decide(facts(wears(SCRIPT, environ_lane=environment), claim=attribute))
    assert (decision.lane, decision.evidence) == (lane, (evidence,))
    believed = decider.decide(facts(wears(GATEWAY, environ_lane=environment), claim=attribute))
    assert believed.lane == "gateway:run"


def test_a_condition_on_a_claim_counts_believed_ones_only_and_says_how_it_was_made() -> None:
    lanes = [{"name": "job", "claim": "*-1", "process": {"exe": "*"}}]
    decider = Decider(policy({"lanes": lanes, "claims": CLAIMS}), ids)
    by_environment = decider.decide(facts(wears(SCRIPT, environ_lane="job-1")))
    assert (by_environment.lane, by_environment.evidence) == ("job", ("process.exe", "claim.environment"))
    by_attribute = decider.decide(facts(wears(SCRIPT, environ_lane="job-1"), claim="tool-1"))
    assert by_attribute.evidence == ("process.exe", "claim.attribute")
    assert decider.decide(facts(wears(SCRIPT, environ_lane="tool-1"), claim="job-1")).lane == "backup"
    assert decider.decide(facts(wears(SCRIPT, environ_lane="job-2"))).lane == "job-2"


# ---- conditions


def test_a_star_matches_slashes_newlines_and_bytes_that_are_no_text() -> None:
    for path in (b"a/b/c.jsonl", b"a\nb.jsonl", b"a\xff\xfe.jsonl"):
        assert holds({"path": "a*.jsonl"}, facts(path=path))
    assert not holds({"path": "*.jsonl"}, facts(path=b"a.jsonl\n"))
    assert not holds({"path": "*.JSONL"}, facts())
    assert holds({"path": "?.jsonl"}, facts(path="ü.jsonl".encode()))


def test_arguments_are_joined_by_single_spaces() -> None:
    assert holds({"process": {"args": "openclaw gateway"}}, facts())
    assert not holds({"process": {"args": "openclaw"}}, facts())


def test_an_executable_that_was_replaced_is_matched_by_the_path_it_had() -> None:
    assert holds({"process": {"exe": "*/node"}}, facts(wears(GATEWAY, exe="/usr/local/bin/node (deleted)")))


def test_any_ancestor_is_enough() -> None:
    assert holds({"process": {"ancestor": "systemd"}}, facts())
    assert not holds({"process": {"ancestor": "openclaw"}}, facts())


def test_users_are_meant_by_number_or_by_the_name_that_the_machine_knows() -> None:
    assert holds({"process": {"user": "ann", "group": 1000}}, facts())
    assert holds({"process": {"user": [0, "ann"]}}, facts())
    assert not holds({"process": {"user": "nobody-here"}}, facts())
    assert not holds({"process": {"user": "root"}}, facts())


def test_no_container_is_the_empty_text() -> None:
    inside = facts(wears(GATEWAY, container="0123abcd"))
    assert holds({"process": {"container": "?*"}}, inside) and not holds(
        {"process": {"container": "?*"}}, facts()
    )
    assert holds({"process": {"container": "*"}}, facts())
    assert not holds({"process": {"container": "*"}}, facts(OUTSIDE))


@pytest.mark.parametrize(
    "condition",
    [{"exe": "*"}, {"args": "*"}, {"thread": "*"}, {"main": False}, {"main": True}, {"ancestor": "*"}],
)
def test_what_is_unknown_meets_no_condition_and_escapes_no_unless(condition: dict[str, Any]) -> None:
    assert not holds({"process": condition}, facts(OUTSIDE))
    rule = {"name": "it", "verdict": "stage", "unless": {"process": condition}}
    assert decide({"rules": [rule]}, facts(OUTSIDE))[1] == "it"


def test_the_user_of_a_writer_outside_is_known() -> None:
    assert holds({"process": {"user": 1000}}, facts(OUTSIDE))


@pytest.mark.parametrize("record", [None, INVALID, PART])
def test_what_is_no_record_meets_no_condition_on_records(record: RecordMeta | None) -> None:
    found = facts(record=record, continues="leaf")
    for asked in ({}, {"id": "other"}, {"type": "*"}, {"continues": "leaf"}):
        assert not holds({"record": asked}, found)
        assert holds({"record": asked}, facts(record=RecordMeta(type="x"), continues="leaf"))


def test_of_a_record_too_long_to_be_read_only_what_is_known_counts() -> None:
    head = msgspec.structs.replace(OVERSIZE, type="message")
    assert holds({"record": {"type": "message"}}, facts(record=head))
    assert not holds({"record": {"id": "other"}}, facts(record=head))
    assert holds({"record": {"id": "uuid"}}, facts(record=msgspec.structs.replace(head, id=UUID)))


def test_unless_holds_only_if_all_of_it_holds() -> None:
    rule = {"name": "it", "verdict": "stage", "unless": {"file": "transcript", "lane": "gateway:*"}}
    assert decide({"lanes": LANES, "rules": [rule]}, facts(GATEWAY))[1] == "last"
    assert decide({"lanes": LANES, "rules": [rule]}, facts(SCRIPT))[1] == "it"
    assert decide({"lanes": LANES, "rules": [rule]}, facts(GATEWAY, file="lock"))[1] == "it"


# ---- decisions


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        {"name": "one", "verdict": "stage", "when": {"fence": "other"}},
        {"name": "two", "verdict": "wait", "when": {"fence": ["other", "own"]}, "on_timeout": "deny"},
        {"name": "three", "verdict": "deny", "errno": "EROFS", "when": {"path": "b*"}},
        {"name": "four", "verdict": "deny", "when": {"path": "c*"}},
    ]
    decider = Decider(policy({"rules": rules, "fence": {"on_timeout": "allow"}}), ids)
    one, two = decider.decide(facts(fence="other")), decider.decide(facts(fence="own"))
    assert (one.rule, one.index, one.verdict, one.on_timeout) == ("one", 0, "stage", "allow")
    assert (two.rule, two.index, two.verdict, two.on_timeout) == ("two", 1, "wait", "deny")
    assert decider.decide(facts(path=b"b")).errno == errno.EROFS
    assert decider.decide(facts(path=b"c")).errno == errno.EACCES
    assert decider.decide(facts()).errno == 0


def test_a_policy_whose_last_rule_has_conditions_allows_the_rest() -> None:
    bare = msgspec.convert(
        {"version": 1, "rules": [{"name": "it", "verdict": "deny", "when": {"file": "lock"}}]}, Policy
    )
    decision = Decider(bare, ids).decide(facts())
    assert (decision.rule, decision.index, decision.verdict) == ("(none)", 1, "allow")


def test_the_same_outcome_is_the_same_object() -> None:
    decider = Decider(policy({"lanes": LANES}), ids)
    first = decider.decide(facts(POOL, path=b"a.jsonl"))
    assert decider.decide(facts(POOL, path=b"b.jsonl", fence="other")) is first
    again = msgspec.structs.replace(POOL)
    assert decider.decide(facts(again)) is first
    assert decider.decide(facts(SCRIPT)) is decider.decide(facts(msgspec.structs.replace(SCRIPT)))


def test_many_names_do_not_make_the_tables_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WRITERS", "PATHS", "NAMES", "DECISIONS"):
        monkeypatch.setattr(module, name, 16)
    rule = {
        "name": "it",
        "verdict": "stage",
        "when": {"path": "*1*", "to": "*2*", "record": {"type": "*3*"}, "claim": "*"},
    }
    decider = Decider(
        policy({"rules": [rule, {**rule, "name": "b", "when": {"lane": "*4*"}}], "claims": CLAIMS}), ids
    )
    for number in range(500):
        program = Process(number, 1, f"/bin/p{number}", (), (), None, None, None, None, f"job-{number}")
        text = str(number)
        decider.decide(
            facts(
                Writer(number, number, True, text, number, 0, "ok", program),
                path=text.encode(),
                to=text.encode(),
                record=RecordMeta(type=text, role=text, id=text, provider=text, model=text),
                claim=f"tool-{number}" if number % 2 else None,
            )
        )
    tables = [value for value in vars(decider).values() if isinstance(value, dict)]
    assert len(tables) > 10 and max(map(len, tables)) <= 16


def test_threads_of_one_process_are_told_apart() -> None:
    lanes = [{"name": "pool", "process": {"thread": "libuv*", "main": False}}, {"name": "any", "process": {}}]
    decider = Decider(policy({"lanes": lanes}), ids)
    assert [decider.decide(facts(writer)).lane for writer in (POOL, GATEWAY, POOL)] == ["pool", "any", "pool"]
    assert NODE is POOL.process and PYTHON is SCRIPT.process
