"""`guardfs policy`, as an operator runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from guardfs.policy.examine import examine
from tests.unit.policy_tools import GOOD


def policy(*args: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "guardfs", "policy", *args], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.toml"
    file.write_text(GOOD.replace('verdict = "stage"', '\tverdict = "stge"  # é'))
    file.chmod(0o644)
    return file


def test_check_says_file_line_and_column_of_each_problem_and_ends_with_1(bad: Path) -> None:
    assert policy("check", "record", str(bad)) == (
        1,
        f"{bad}:11:12: rules[0].verdict: 'stge' is none of its values; did you mean 'stage'? "
        "there are allow, deny, stage, wait\n",
        "",
    )


def test_check_ends_with_2_where_a_file_cannot_be_read(bad: Path) -> None:
    status, out, _ = policy("check", str(bad), f"{bad.parent}/none.toml")
    assert status == 2
    assert len(out.splitlines()) == 2


def test_check_only_warns_of_a_file_that_others_can_write(bad: Path) -> None:
    bad.write_text(GOOD)
    bad.chmod(0o666)
    status, out, _ = policy("check", str(bad))
    assert status == 0 and "warning: can be written by" in out


def test_check_tells_programs_the_same(bad: Path) -> None:
    status, out, _ = policy("check", "--json", str(bad), "openclaw")
    assert status == 1
    first, second = json.loads(out)
    assert not first["ok"] and second == {"file": "openclaw", "ok": True, "problems": []}
    assert {key: first["problems"][0][key] for key in ("file", "line", "column", "key", "severity")} == {
        "file": str(bad), "line": 11, "column": 12, "key": "rules[0].verdict", "severity": "error",
    }  # fmt: skip


def test_check_on_a_terminal_shows_the_line_with_the_place_marked(bad: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "guardfs", "policy", "check", str(bad)], stdout=theirs
    ) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:  # the terminal's other end is closed
                break
            if not more:
                break
            shown += more
    os.close(ours)
    assert running.returncode == 1
    plain = click_unstyle(shown.decode())
    assert '   11 |  verdict = "stge"  # é\r\n                   ^^^^^^\r\n' in plain
    assert "\x1b[" in shown.decode()


def click_unstyle(text: str) -> str:
    import click

    return click.unstyle(text)


@pytest.mark.parametrize("name", ["openclaw", "record", "jsonl", "pi"])
def test_what_show_prints_is_the_same_policy(name: str) -> None:
    from guardfs.policy.load import load

    status, out, _ = policy("show", name)
    assert status == 0
    assert examine(out.encode()).policy == load(name).policy


def test_show_says_where_each_value_is_from() -> None:
    out = policy("show", "record")[1].splitlines()
    assert [line.split()[-1] for line in out if line.startswith(("idle_timeout", "version"))] == [
        "record:7",
        "default",
    ]
    values = json.loads(policy("show", "--json", "record")[1])["values"]
    assert {"key": "fence.idle_timeout", "value": "15m", "from": "default"} in values


def test_show_of_a_bad_policy_says_why_and_ends_with_1(bad: Path) -> None:
    status, out, err = policy("show", str(bad))
    assert (status, out) == (1, "") and ":11:12: " in err


def test_list_names_what_ships() -> None:
    assert "openclaw" in policy("list")[1]
    assert {"openclaw", "record"} <= {entry["name"] for entry in json.loads(policy("list", "--json")[1])}


def test_schema_is_json() -> None:
    assert json.loads(policy("schema")[1])["$schema"].endswith("2020-12/schema")
