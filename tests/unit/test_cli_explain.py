"""`guardfs explain`, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardfs.audit.event import Notice
from guardfs.policy.load import load
from tests.unit.audit_tools import CRON, append, make_log, operation

ROOT = Path(__file__).parents[2]

POLICY = """version = 1
[[lanes]]
name = "gw"
process = { exe = "*/node", args = "openclaw*" }
[[lanes]]
name = "run"
within = "gw"
process = { main = true }
[[rules]]
name = "fenced"
verdict = "stage"
when = { fence = "other" }
[[rules]]
name = "rest"
verdict = "allow"
"""


def guardfs(*args: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", *args],
        cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True, check=False, input=text,
    )  # fmt: skip


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "my.toml"
    path.write_text(POLICY)
    return str(path)


@pytest.fixture
def log(tmp_path: Path, policy: str) -> str:
    made = make_log(tmp_path, max_bytes=4000, keep=50)
    made.start()
    made.emit(Notice("policy", 1, {"source": policy, "change": "loaded", "new": load(policy).digest}))
    for number in range(20):
        made.emit(append(offset=number, operation="append"))
    made.emit(Notice("policy", 1, {"source": "/else.toml", "change": "refused", "old": "x"}))
    made.emit(operation("unlink", writer=CRON))
    made.close()
    return made.path


def seq_of(log: str, op: str) -> str:
    found = guardfs("tail", "--audit", log, "--op", op, "-n", "1", "--json")
    return str(json.loads(found.stdout)["seq"])


def told(*args: str, text: str = "") -> dict[str, Any]:
    found = guardfs("explain", *args, "--json", text=text)
    assert found.returncode == 0, found.stderr
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def test_what_a_log_says_of_a_process_may_be_anything(log: str) -> None:
    *_, last = Path(log).read_bytes().splitlines()
    odd = b'{"op":"process","tgid":[],"start":{},"exe":7}'
    found, plain = (
        told("--event", "-", text=b"\n".join([*lines, last, b""]).decode()) for lines in ([odd], [])
    )
    assert found == plain


def test_an_operation_that_options_describe(policy: str) -> None:
    found = guardfs(
        "explain", "--policy", policy, "--exe", "/usr/bin/python3.11", "--fence", "other", "--op", "append"
    )
    assert found.returncode == 0 and found.stderr == "" and "\x1b" not in found.stdout
    assert "✗ gw " in found.stdout
    assert "process.exe: asked */node, found /usr/bin/python3.11" in found.stdout
    assert "verdict: stage, by the rule 'fenced'" in found.stdout


def test_all_that_options_describe_is_looked_at(policy: str) -> None:
    options = (
        "--op rename --path d/a.jsonl --to b --file other --exe /bin/node --args openclaw --thread t --pool "
        "--user 7 --group 8 --container c --ancestor p --ancestor q --record-type T --record-role R "
        "--record-id 0123abcd --record-provider P --record-model M --continues leaf --fence own --lock other --claim x "
        "--environment-claim y"
    ).split()
    facts = told("--policy", policy, *options)["facts"]
    assert (facts["operation"], facts["path"], facts["to"], facts["file"]) == (
        "rename",
        "d/a.jsonl",
        "b",
        "other",
    )
    writer = facts["writer"]
    assert (writer["comm"], writer["main"], writer["uid"], writer["gid"]) == ("t", False, 7, 8)
    process = writer["process"]
    assert (process["exe"], process["args"], process["container"]) == ("/bin/node", ["openclaw"], "c")
    assert [name for _, name in process["parents"]] == ["p", "q"] and process["environ_lane"] == "y"
    record = {"type": "T", "role": "R", "id": "0123abcd", "provider": "P", "model": "M"}
    assert facts["record"] == record and facts["claim"] == "x"
    assert (facts["continues"], facts["fence"], facts["lock"]) == ("leaf", "own", "other")


def test_an_event_of_a_log_by_the_policy_that_the_log_names(log: str, policy: str) -> None:
    found = told("--event", seq_of(log, "write"), "--audit", log)
    assert found["policy"]["source"] == policy
    assert found["notes"] == ["the log masks some arguments; a condition on them may hold all the same"]
    assert (found["lane"], found["rule"]) == ("gw", "rest")  # a pool thread
    assert found["logged"] == {"lane": "gateway", "rule": "record", "verdict": "allow"}
    assert found["facts"]["writer"]["process"]["args"][0] == "openclaw"
    shown = guardfs("explain", "--event", seq_of(log, "unlink"), "--audit", log)
    assert "lane: cron" in shown.stdout and "the log says: lane gateway" in shown.stdout


def test_the_policy_of_a_log_that_has_only_seen_its_start(tmp_path: Path, policy: str) -> None:
    made = make_log(tmp_path)
    made.start()
    made.emit(Notice("start", 1, {"policy": {"source": policy, "digest": load(policy).digest}}))
    made.emit(append(operation="append"))
    made.close()
    found = told("--event", seq_of(made.path, "write"), "--audit", made.path)
    assert found["policy"]["source"] == policy and not any("no policy" in note for note in found["notes"])


def test_a_policy_that_has_changed_since_is_told(log: str, policy: str) -> None:
    with open(policy, "a") as file:
        file.write("# more\n")
    assert "is not what it was" in told("--event", seq_of(log, "write"), "--audit", log)["notes"][0]


def test_without_the_policy_of_the_log_record_is_taken_and_said(log: str, policy: str) -> None:
    os.unlink(policy)
    found = told("--event", seq_of(log, "write"), "--audit", log)
    assert found["policy"]["source"] == "record" and "cannot be used" in found["notes"][0]


def test_a_line_on_standard_input(log: str, policy: str) -> None:
    lines = Path(log).read_text().splitlines()
    by_line = told("--event", "-", "--policy", policy, text=lines[-1])
    assert (
        by_line["facts"]["operation"] == "unlink" and "does not describe the process" in by_line["notes"][0]
    )
    process = next(line for line in lines if '"op":"process"' in line and "cron.sh" in line)
    both = told("--event", "-", "--policy", policy, text=f"{process}\n{lines[-1]}\n")
    assert both["facts"]["writer"]["process"]["args"] == ["sh", "cron.sh"] and both["notes"] == []


def test_where_a_terminal_has_no_marks_others_stand(policy: str) -> None:
    found = guardfs("explain", "--policy", policy, "--exe", "/bin/ä", PYTHONIOENCODING="ascii")
    assert found.returncode == 0 and "  - gw" in found.stdout and "  + rest" in found.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--event", "1", "--audit", "/nonexistent"], "no such file"),
        (["--event", "x"], "not a number"),
        (["--event", "1", "--exe", "x"], "leave one out"),
        (["--event", "1", "--audit", "x", "/"], "leave one out"),
        ([], "say which operation"),
        (["--event", "-"], "no operation of a log"),
        (["--exe", "x", "--policy", "opnclaw"], "did you mean 'openclaw'"),
        (["--op", "apend"], "apend"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args: list[str], said: str) -> None:
    found = guardfs("explain", *args)
    assert found.returncode == 2
    assert said in found.stderr and found.stderr.count("\n") == 1 and found.stdout == ""


def test_an_event_that_is_not_there_or_no_operation(log: str) -> None:
    missing = guardfs("explain", "--event", "4711", "--audit", log)
    assert missing.returncode == 2 and "no event 4711; it has 1 to " in missing.stderr
    notice = guardfs("explain", "--event", "1", "--audit", log)
    assert notice.returncode == 2 and "is a notice of the guard" in notice.stderr
