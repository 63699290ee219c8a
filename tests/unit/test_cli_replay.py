"""`guardfs replay`, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardfs.audit.event import Operation
from guardfs.audit.facts import Outcome
from guardfs.cli import replay as module
from guardfs.policy.decide import Decider
from guardfs.policy.facts import Facts
from guardfs.policy.load import load
from guardfs.policy.users import ids
from tests.unit.audit_tools import CRON, OUTSIDE, append, make_log, operation

ROOT = Path(__file__).parents[2]

POLICY = """version = 1
[[lanes]]
name = "gw"
process = { exe = "*/node", args = "openclaw gateway *" }
[[rules]]
name = "scripts"
verdict = "stage"
when = { operation = "unlink" }
[[rules]]
name = "rest"
verdict = "allow"
"""


def guardfs(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", *args],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "my.toml"
    path.write_text(POLICY)
    return str(path)


@pytest.fixture
def log(tmp_path: Path, policy: str) -> str:
    """Written under that policy, over several files."""
    decider = Decider(load(policy).policy, ids)
    made = make_log(tmp_path, max_bytes=4000, keep=50)
    made.start()
    for item in (*(append(offset=number, operation="append") for number in range(20)),
                 operation("unlink", writer=CRON), operation("look", writer=OUTSIDE)):  # fmt: skip
        made.emit(decided(decider, item))
    made.close()
    return made.path


def decided(decider: Decider, item: Operation) -> Operation:
    kinds: dict[str, Any] = {"write": "append", "unlink": "unlink", "look": "look"}
    record = item.records[0] if item.records else None
    item.decision = decider.decide(Facts(item.writer, kinds[item.op], "transcript", item.path, None, record))
    return item


def test_the_policy_that_a_log_was_written_under_says_the_same(log: str, policy: str) -> None:
    assert len(list(Path(log).parent.glob("audit.jsonl*"))) > 1
    found = guardfs("replay", log, "--policy", policy)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == f"{policy}: 22 operations, 22 as before, 0 otherwise\n"


def test_another_policy_is_shown_as_a_difference(log: str, policy: str) -> None:
    Path(policy).write_text(POLICY.replace('"gw"', '"gateway"').replace('"stage"', '"deny"'))
    found = guardfs("replay", log, "--policy", policy)
    assert found.returncode == 1
    lines = found.stdout.splitlines()
    assert lines[0].startswith("20 times, first seq ") and lines[1:3] == [
        "  before  allow  gw: rest",
        "  now     allow  gateway: rest",
    ]
    assert lines[3].startswith("once: seq ") and lines[4:] == [
        "  before  stage  cron: scripts",
        "  now     deny   cron: scripts",
        f"{policy}: 22 operations, 1 as before, 21 otherwise",
    ]


def test_json_tells_the_same(log: str, policy: str) -> None:
    Path(policy).write_text(POLICY.replace('"gw"', '"gateway"'))
    told = json.loads(guardfs("replay", log, "--policy", policy, "--json").stdout)
    assert (told["operations"], told["same"], told["differ"], told["changes_total"]) == (22, 2, 20, 1)
    change = told["changes"][0]
    assert change["count"] == 20 and change["before"] == {"lane": "gw", "rule": "rest", "verdict": "allow"}
    assert change["after"]["lane"] == "gateway" and change["first"]["seq"] < change["last"]["seq"]
    assert told["undecided"] == {"count": 0}


def test_lines_that_cannot_be_decided_are_counted_and_shown(log: str, policy: str) -> None:
    with open(log, "a") as file:
        file.write('{"v":1,"seq":99,"prev":"","time":"","op":"write","writer":{}}\nbroken\n')
    found = guardfs("replay", log, "--policy", policy)
    assert found.returncode == 1
    assert "could not be decided: 2 lines; the first: " in found.stdout and ": no path" in found.stdout


def test_only_the_most_frequent_differences_are_shown_unless_all_are_wanted(
    tmp_path: Path, policy: str
) -> None:
    made = make_log(tmp_path)
    made.start()
    decider = Decider(load(policy).policy, ids)
    for number in range(module.SHOWN + 5):
        item = decided(decider, append(offset=number, operation="append"))
        item.decision = type(item.decision)(f"lane{number}", (), "rest", 0, "allow")
        made.emit(item)
    made.close()
    found = guardfs("replay", made.path, "--policy", policy)
    assert found.stdout.count("before") == module.SHOWN + 1 and "and 5 differences more" in found.stdout
    every = guardfs("replay", made.path, "--policy", policy, "--all")
    assert every.stdout.count("  before  ") == module.SHOWN + 5


def test_differences_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 3)
    totals = module._Totals()
    after = Outcome("b", "r", "allow")
    for number in range(10):
        totals.count(Outcome(str(number), "r", "allow"), after, module._Place("f", number, ""))
    assert (len(totals.changes), totals.beyond, totals.differ) == (3, 7, 10)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["/nonexistent", "--policy", "record"], "no such file"),
        ([__file__, "--policy", "record"], "not an audit log"),
        (["/nonexistent", "--policy", "recrd"], "did you mean 'record'"),
        (["--policy", "record"], "AUDIT"),
        (["x"], "--policy"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args: list[str], said: str) -> None:
    found = guardfs("replay", *args)
    assert found.returncode == 2
    assert said in found.stderr and found.stderr.count("\n") == 1 and found.stdout == ""
