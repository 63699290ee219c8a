"""The policies that ship: each is whole, tested by its own examples, and says what the README promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guardfs.audit.event import Kind
from guardfs.policy.decide import Decider
from guardfs.policy.examine import examine
from guardfs.policy.examples import Names, beside, facts_of, read_examples, run
from guardfs.policy.facts import Facts
from guardfs.policy.files import Files
from guardfs.policy.load import load, shipped
from guardfs.policy.model import Example, Policy
from guardfs.transcript.names import NameRules
from tests.support.traces import NAMES, Step, no_ids, steps

POLICY = Path(__file__).parent.parent.parent / "policy"
NAMES_THAT_SHIP = ["claude-code", "codex", "gemini-cli", "jsonl", "openclaw", "pi", "record"]


def examples(name: str) -> tuple[Example, ...]:
    """Those in the policy's file and those beside it."""
    loaded = load(name)
    there = Path(beside(loaded.path))
    if not there.exists():
        return loaded.policy.examples
    found, _, problems = read_examples(there.read_bytes())
    assert problems == ()
    return loaded.policy.examples + found


def facts(example: Example, policy: Policy) -> Facts:
    return facts_of(example.event, Files(policy.transcripts), Names())


def test_these_ship() -> None:
    assert sorted(name for name, _ in shipped()) == NAMES_THAT_SHIP


@pytest.mark.parametrize("name", NAMES_THAT_SHIP)
def test_it_loads_without_a_warning_and_only_records(name: str) -> None:
    loaded = load(name)
    assert loaded.warnings == ()
    assert loaded.policy.description
    assert loaded.policy.mode == "record", "enforcing is the operator's to choose"


@pytest.mark.parametrize("name", NAMES_THAT_SHIP)
def test_its_examples_come_out_as_they_say(name: str) -> None:
    found = examples(name)
    assert found
    assert [result for result in run(load(name).policy, found) if result.wrong] == []


@pytest.mark.parametrize("name", NAMES_THAT_SHIP)
def test_every_lane_and_every_rule_has_an_example(name: str) -> None:
    policy = load(name).policy
    found = examples(name)
    rules = {rule.name for rule in policy.rules}
    assert rules - {example.rule for example in found} == set()
    lanes = {f"{lane.within}:{lane.name}" if lane.within else lane.name for lane in policy.lanes}
    assert lanes - {example.lane for example in found} == set()


@pytest.mark.parametrize("name", [name for name in NAMES_THAT_SHIP if name != "openclaw"])
def test_where_nobody_knows_what_may_be_moved_nothing_but_allow_is_said(name: str) -> None:
    assert {rule.verdict for rule in load(name).policy.rules} == {"allow"}


def test_openclaw_never_holds_or_refuses() -> None:
    """A wait could hold one of the gateway's four pool threads; an error on an append loses the message."""
    policy = load("openclaw").policy
    assert {rule.verdict for rule in policy.rules} == {"allow", "stage"}
    assert policy.fence.on_timeout == "stage"


def test_record_knows_nothing_of_agents() -> None:
    policy = load("record").policy
    assert policy.lanes == ()
    assert [(rule.name, rule.verdict, rule.when) for rule in policy.rules] == [("record", "allow", None)]
    assert policy.transcripts == load("openclaw").policy.transcripts, (
        "names are sorted alike without a policy"
    )


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("openclaw", "379c09ab.jsonl", True),
        ("openclaw", "379c09ab-topic-7.jsonl", True),
        ("openclaw", "379c09ab.trajectory.jsonl", False),
        ("openclaw", "379c09ab.checkpoint.c6e3f9fe.jsonl", False),
        ("openclaw", "379c09ab.jsonl.reset.2026-11-23T01-20-13.219Z", False),
        ("codex", "rollout-2026-05-23T03-37-47-a.jsonl", True),
        ("codex", "history.jsonl", False),
        ("gemini-cli", "session-2026-05-23T03-37-a.jsonl", True),
        ("gemini-cli", "logs.json", False),
    ],
)
def test_which_files_are_transcripts(name: str, path: str, kind: bool) -> None:
    found = NameRules(load(name).policy.transcripts).kind(path.encode())
    assert found is (Kind.TRANSCRIPT if kind else Kind.OTHER)


@pytest.mark.parametrize("name", [name for name in NAMES_THAT_SHIP if name not in ("openclaw", "record")])
def test_agents_without_lock_files_have_no_fences(name: str) -> None:
    policy = load(name).policy
    assert (policy.transcripts.lock, policy.fence.protocol) == ("", "none")


def test_the_readme_names_exactly_what_ships() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \|", (POLICY / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == NAMES_THAT_SHIP


@pytest.mark.parametrize("name", NAMES_THAT_SHIP)
def test_its_head_says_how_it_is_used(name: str) -> None:
    """A comment in front of the first key: what it is for, and a command that works once the names are filled in."""
    head = (POLICY / f"{name}.toml").read_text().partition("\nversion = ")[0]
    assert all(line.startswith("#") or not line for line in head.splitlines())
    assert f"--policy {name} -- " in head


# ---- openclaw.examples.toml against the traces that it names

_TAKEN = re.compile(
    r"^# ([a-z-]+)\.jsonl, t = ([0-9.]+)(?::[^\n]*)?\n(\[\[examples\]\]\n(?:[^\n]+\n)+)", re.MULTILINE
)


def taken() -> list[tuple[str, str, dict[str, Any]]]:
    """Trace, second, and the example as it stands."""
    text = (POLICY / "openclaw.examples.toml").read_text()
    return [
        (trace, second, tomllib.loads(block)["examples"][0]) for trace, second, block in _TAKEN.findall(text)
    ]


@pytest.fixture(scope="module")
def traces() -> dict[tuple[str, float], Step]:
    policy = load("openclaw").policy
    return {(name, step.raw["t"]): step for name in NAMES for step in steps(name, policy.transcripts)}


def test_most_examples_are_taken_from_traces() -> None:
    assert len(taken()) > len(examples("openclaw")) / 2


@pytest.mark.parametrize(
    ("trace", "second", "example"), taken(), ids=[example["name"] for _, _, example in taken()]
)
def test_an_example_says_what_the_trace_shows(
    trace: str, second: str, example: dict[str, Any], traces: dict[tuple[str, float], Step]
) -> None:
    traced = traces[trace, float(second)].facts
    event = example["event"]
    shown = facts(msgspec.convert(example, Example), load("openclaw").policy)
    assert (shown.operation, shown.file, shown.path, shown.to) == (
        traced.operation,
        traced.file,
        traced.path,
        traced.to,
    )
    assert (shown.lock, shown.writer.main, shown.writer.comm) == (
        traced.lock,
        traced.writer.main,
        traced.writer.comm,
    )
    told, seen = event.get("record", {}), traced.record
    assert (seen is None) == (not told)
    if seen is not None:
        assert (told["type"], told.get("role"), told.get("id")) == (seen.type, seen.role, seen.id)


def test_every_kind_of_call_by_every_lane_of_the_traces_has_an_example(
    traces: dict[tuple[str, float], Step],
) -> None:
    decider = Decider(load("openclaw").policy, no_ids)
    there = set()
    for (_, _), step in traces.items():
        there.add((decider.decide(step.facts).lane, step.facts.operation, step.facts.file))
    tried = set()
    for example in examples("openclaw"):
        described = facts(example, decider.policy)
        tried.add((decider.decide(described).lane, described.operation, described.file))
    assert there - tried == set()


@pytest.mark.parametrize("name", NAMES_THAT_SHIP)
def test_what_stands_in_comments_works_once_it_is_uncommented(name: str) -> None:
    text = (POLICY / f"{name}.toml").read_text()
    key = r"\[\[(?:lanes|rules)\]\]|(?:name|description|process|unless|verdict|errno|when) = "
    uncommented, count = re.subn(rf"^# (?={key})", "", text, flags=re.MULTILINE)
    assert count or name not in ("openclaw", "jsonl")
    found = examine(uncommented.encode())
    assert found.problems == ()
    assert found.policy is not None
    plain = load(name).policy
    assert (len(found.policy.lanes), len(found.policy.rules)) >= (len(plain.lanes), len(plain.rules))
