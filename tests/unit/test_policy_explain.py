"""Why a policy says what it says: every lane and rule tried, what each asked, what was found."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from guardfs.policy.decide import Decider
from guardfs.policy.explain import Explanation, explain
from guardfs.policy.facts import Facts
from guardfs.policy.model import Policy
from guardfs.transcript.records import INVALID, PART, RecordMeta
from tests.unit.decide_tools import (
    GATEWAY,
    OUTSIDE,
    POOL,
    SCRIPT,
    any_facts,
    facts,
    ids,
    plain_decide,
    policies,
    policy,
)

LANES: list[dict[str, Any]] = [
    {"name": "script", "process": {"exe": "*/python*"}, "unless": {"process": {"args": "*backup*"}}},
    {"name": "gateway", "process": {"exe": "*/node"}},
    {"name": "mirror", "within": "gateway", "record": {"id": "uuid"}},
    {"name": "run", "within": "gateway", "process": {"main": True}},
]
RULES: list[dict[str, Any]] = [
    {"name": "fenced", "verdict": "stage", "when": {"fence": "other"}},
    {"name": "bob's", "verdict": "deny", "when": {"process": {"user": "bob"}}},
]


def explained(found: Facts, **more: Any) -> Explanation:
    return explain(Decider(policy({"lanes": LANES, "rules": RULES, **more}), ids), found)


@settings(max_examples=200, deadline=None)
@given(policies(), any_facts)
def test_an_explanation_comes_to_what_is_decided(policy: Policy, found: Facts) -> None:
    decider = Decider(policy, ids)
    decision, told = decider.decide(found), explain(decider, found)
    assert (told.lane, told.evidence, told.rule) == (decision.lane, decision.evidence, decision.rule)
    assert (told.verdict, told.errno, told.on_timeout) == (
        decision.verdict,
        decision.errno,
        decision.on_timeout,
    )
    assert (told.lane, told.evidence, told.rule, told.verdict) == plain_decide(policy, found)
    for trial in (*told.lanes, *told.rules):
        unless = trial.unless is not None and all(each.held for each in trial.unless)
        assert trial.matched == (all(each.held for each in trial.conditions) and not unless)
        assert trial.decisive()
    assert [trial.matched for trial in told.rules] == [False] * (len(told.rules) - 1) + [True]
    msgspec.json.encode(told)


def test_lanes_and_rules_are_told_in_the_order_in_which_they_were_tried() -> None:
    told = explained(facts(GATEWAY))
    tried = [(trial.name, trial.matched, trial.decisive()) for trial in told.lanes]
    assert tried == [
        ("script", False, "process.exe: asked */python*, found /usr/local/bin/node"),
        ("gateway", True, "process.exe: /usr/local/bin/node"),
        ("gateway:mirror", False, "record.id: asked uuid, found no record is written"),
        ("gateway:run", True, "process.main: true"),
    ]
    assert (told.lane, told.evidence, told.fallback) == ("gateway:run", ("process.exe", "process.main"), "")
    assert [(trial.name, trial.decisive()) for trial in told.rules] == [
        ("fenced", "fence: asked other, found none"),
        ("bob's", "process.user: asked bob, found 1000 (this machine knows no bob)"),
        ("last", "asks nothing"),
    ]


def test_an_unless_that_holds_is_told() -> None:
    told = explained(facts(SCRIPT))
    assert told.lanes[0].decisive() == "unless process.args: asked *backup*, found python3 /srv/backup.py"
    assert (told.lane, told.fallback) == ("backup", "label")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (INVALID, "what is written is no record"),
        (PART, "only a part of a record is written"),
        (RecordMeta(type="message", id="0123abcd"), "hex8"),
    ],
)
def test_why_a_record_meets_no_condition(record: RecordMeta, said: str) -> None:
    assert explained(facts(POOL, record=record)).lanes[2].decisive() == f"record.id: asked uuid, found {said}"


def test_why_a_writer_meets_no_condition() -> None:
    told = explained(facts(OUTSIDE))
    assert told.lanes[0].decisive().endswith("found unknown: outside the guard's pid namespace")


def test_a_claim_that_is_not_believed_is_told() -> None:
    lanes = [{"name": "job", "claim": "*"}]
    told = explained(facts(claim="tool"), lanes=lanes)
    assert told.lanes[0].decisive() == "claim: asked *, found user.guardfs.lane=tool is not believed"
    told = explained(facts(claim="tool"), lanes=lanes, claims={"attribute": ["tool"]})
    assert (told.lane, told.evidence) == ("job", ("claim.attribute",))


def test_long_lists_and_texts_are_shortened_for_people_only() -> None:
    rules = [{"name": "it", "verdict": "stage", "when": {"path": [f"*{n}*" for n in range(2, 9)]}}]
    told = explained(facts(path=b"x" * 500), rules=rules)
    condition = told.rules[0].conditions[0]
    assert condition.text().startswith("path: asked *2* or *3* or *4* or *5* or 3 more, found xxx")
    assert len(condition.text()) < 200 and condition.found == ("x" * 500,) and len(condition.asked) == 7
