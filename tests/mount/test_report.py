"""A report of a real run: writers through a mount, turns that die of them, and the page that says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGuard
from tests.support.guard import GUARDFS, environment
from tests.support.mortal import POLICY, SECRET

pytestmark = pytest.mark.mount

STORIES = ["quiet", "cron", "chmod", "quiet", "replace", "new", "quiet"]


def test_every_turn_that_died_is_in_the_page_with_its_culprit_and_no_text_is(
    start_guard: StartGuard, place: Path
) -> None:
    policy = place / "policy.toml"
    policy.write_text(POLICY)
    policy.chmod(0o644)
    guard = start_guard("--policy", str(policy))
    command = [sys.executable, "-m", "tests.support.mortal", str(guard.directory), *STORIES]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    died = json.loads(done.stdout)
    assert died == ["cron", "chmod", "replace", "new"]
    assert any(SECRET in path.read_text() for path in guard.directory.glob("*.jsonl"))
    guard.settle()
    written = subprocess.run(
        [*GUARDFS, "report", str(guard.directory)], env=environment(), capture_output=True, check=True
    )
    page = written.stdout.decode()
    assert SECRET not in page
    model: dict[str, Any] = json.loads(re.findall(r'id="model">(.*?)</script>', page)[0])
    session = model["sessions"][0]
    assert session["name"] == "agent:main:feishu:direct:ou_demo"
    lanes = [lane["name"] for lane in session["lanes"]]
    assert [(lanes[each["culprit"]["lane"]], each["culprit"]["op"]) for each in session["incidents"]] == [
        ("cron", "append"),
        ("permissions", "attributes"),
        ("sync-tool", "rename over"),
        ("gateway:reset", "rename away"),
    ]
    assert all(each["culprit"]["mark"] is not None for each in session["incidents"])
    assert len(session["fences"]) == len(STORIES)
    for incident in session["incidents"]:
        when = incident["culprit"]["time"]
        assert [
            fence["open"] < when < incident["time"] for fence in session["fences"] if fence["close"] > when
        ][:1] == [True]
    assert "4 turns died" in page and f">{guard.directory}<" in page
