"""Examples in a policy and beside it, and `guardfs policy test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from guardfs.cli.policy_test import command
from guardfs.policy.examples import Names, facts_of, read_examples, run
from guardfs.policy.files import Files
from guardfs.policy.model import ExampleEvent, Transcripts
from tests.unit.decide_tools import policy

GOOD = """version = 1
[[lanes]]
name = "gw"
process = { exe = "*/node", user = "nobody-here" }
[[rules]]
name = "fenced"
verdict = "stage"
when = { fence = "other" }
[[rules]]
name = "rest"
verdict = "allow"
"""

PASSES = """
[[examples]]
name = "the gateway, fenced"
lane = "gw"
rule = "fenced"
verdict = "stage"
event = { fence = "other", process = { exe = "/bin/node", user = "nobody-here" } }
"""

FAILS = """
[[examples]]
name = "a shell"
lane = "gw"
verdict = "allow"
event = { fence = "other", process = { exe = "/bin/sh" } }
"""


def tried(text: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    made = policy(text)
    return [(result.wrong, result.why) for result in run(made, made.examples)]


def event(**keys: Any) -> ExampleEvent:
    return msgspec.convert(keys, ExampleEvent)


def test_an_event_becomes_facts() -> None:
    files = Files(Transcripts())
    record = {"type": "message", "id": "0123abcd", "continues": "leaf"}
    process = {
        "exe": "/bin/node",
        "args": ["a", "b"],
        "thread": "t",
        "main": False,
        "user": "ann",
        "ancestors": ["sh"],
    }
    claim = {"environment": "e", "attribute": "f"}
    made = facts_of(
        event(path="x/a.jsonl", record=record, process=process, claim=claim, lock="own"), files, Names()
    )
    writer = made.writer
    assert made.file == "transcript" and made.path == b"x/a.jsonl" and made.lock == "own"
    assert made.record is not None and made.record.type == "message" and made.continues == "leaf"
    assert not writer.main and writer.tid != writer.tgid and writer.comm == "t" and writer.uid > 1 << 31
    assert writer.process is not None and writer.process.args == ("a", "b") and made.claim == "f"
    assert writer.process.parents == ((0, "sh"),) and writer.process.environ_lane == "e"


@pytest.mark.parametrize(
    ("path", "to", "file"),
    [
        ("a.jsonl", None, "transcript"),
        ("d/a.jsonl.lock", None, "lock"),
        ("sessions.json", None, "registry"),
        (".tmp", "sessions.json", "registry"),
        ("d/sessions.json", None, "other"),
        ("a.jsonl", "a.jsonl.bak", "transcript"),
    ],
)
def test_a_file_is_what_the_policy_says_of_its_name(path: str, to: str | None, file: str) -> None:
    assert facts_of(event(path=path, to=to), Files(Transcripts()), Names()).file == file
    assert facts_of(event(path=path, to=to, file="lock"), Files(Transcripts()), Names()).file == "lock"


def test_without_a_registry_no_path_is_one() -> None:
    assert Files(Transcripts(registry="")).of(b"") == "other"


def test_what_an_example_leaves_out_is_not_compared() -> None:
    text = {
        "examples": [
            {"name": "one", "event": {}, "verdict": "allow"},
            {"name": "two", "event": {}, "rule": "x"},
        ]
    }
    assert tried(text) == [((), ""), (("rule",), "no rule 'x'")]


def test_a_failure_says_which_condition_decided() -> None:
    text: dict[str, Any] = {
        "lanes": [
            {"name": "gw", "process": {"exe": "*/node"}},
            {"name": "run", "within": "gw", "process": {"main": True}},
            {"name": "late", "process": {"exe": "*/node"}},
        ],
        "rules": [{"name": "fenced", "verdict": "stage", "when": {"fence": "other"}}],
    }
    node, shell = {"process": {"exe": "/bin/node"}}, {"process": {"exe": "/bin/sh"}}
    text["examples"] = [
        {"name": "a", "event": shell, "lane": "gw"},
        {"name": "b", "event": node, "lane": "late"},
        {"name": "c", "event": node, "lane": "gw"},
        {"name": "d", "event": node, "lane": "gw:rum"},
        {"name": "e", "event": node, "rule": "fenced"},
        {"name": "f", "event": {**node, "fence": "other"}, "rule": "last"},
        {"name": "g", "event": node, "verdict": "stage"},
    ]
    assert tried(text) == [
        (("lane",), "lane 'gw': process.exe: asked */node, found /bin/sh"),
        (("lane",), "lane 'gw:run' matched: process.main: true"),
        (("lane",), "lane 'gw:run' matched: process.main: true"),
        (("lane",), "no lane 'gw:rum'; did you mean 'gw:run'?"),
        (("rule",), "rule 'fenced': fence: asked other, found none"),
        (("rule",), "rule 'fenced' matched: fence: other"),
        (("verdict",), "rule 'last': asks nothing"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "e:1"),
        ("mode = 'record'", "only [[examples]] do"),
        ("[[examples]]\nname = 'a'\nlane = 'b'\nevent = { pth = 'x' }", "examples[0].event.pth"),
        ("[[examples]]\nname = 'a'\nevent = {}", "expects nothing"),
        ("[[examples]]\nname = 'a'\nlane = 'b'", "event"),
        ("version = 2", "version"),
    ],
)
def test_a_bad_file_of_examples_says_where(text: str, said: str) -> None:
    examples, _, problems = read_examples(text.encode())
    assert examples == () and said in problems[0].text("e")


# ---- the command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(GOOD + PASSES)
    return path


def guardfs_policy_test(*args: str) -> Result:
    return CliRunner().invoke(command, args, standalone_mode=False)


def test_a_policy_that_says_what_its_examples_expect(file: Path) -> None:
    found = guardfs_policy_test(str(file))
    assert (found.return_value, found.stdout) == (0, f"{file}: 1 example, passed\n")
    assert "'the gateway, fenced': passed" in guardfs_policy_test(str(file), "-v").stdout


def test_an_example_that_fails_is_named_with_its_place(file: Path) -> None:
    beside = file.with_name("my.examples.toml")
    beside.write_text("version = 1\n" + FAILS)
    found = guardfs_policy_test(str(file))
    assert found.return_value == 1
    assert found.stdout.splitlines() == [
        f"{beside}:3: 'a shell': expected lane 'gw', got 'sh'; expected verdict 'allow', got 'stage' "
        "(lane 'gw': process.exe: asked */node, found /bin/sh)",
        f"{file}: 2 examples, 1 failed",
    ]
    told = json.loads(guardfs_policy_test(str(file), "--json").stdout)
    assert (told["examples"], told["failed"]) == (2, 1)
    assert [(each["line"], each["passed"]) for each in told["results"]] == [(12 + 1, True), (3, False)]


def test_a_bad_file_ends_with_2_and_the_others_are_tried(file: Path) -> None:
    bad = file.with_name("bad.toml")
    bad.write_text(GOOD + "[[examples]]\nname = 'a'\nlane = 'b'\nevnt = {}\n")
    found = guardfs_policy_test(str(bad), str(file), str(file.with_name("none.toml")))
    assert found.return_value == 2 and "1 example, passed" in found.stdout
    assert f"{bad}:" in found.stderr and "evnt" in found.stderr and "none.toml" in found.stderr
    file.with_name("my.examples.toml").write_text("rules = 1\n")
    found = guardfs_policy_test(str(file))
    assert found.return_value == 2 and "my.examples.toml:1:1: rules: does not belong here" in found.stderr


def test_a_policy_without_examples_says_so(file: Path) -> None:
    file.write_text(GOOD)
    found = guardfs_policy_test(str(file))
    assert found.return_value == 0 and "no examples" in found.stdout


@pytest.mark.parametrize("name", ["openclaw", "pi", "claude-code", "codex", "gemini-cli", "jsonl", "record"])
def test_the_policies_that_ship_pass_their_examples(name: str) -> None:
    found = guardfs_policy_test(name)
    assert found.return_value == 0, found.output
