"""Eight sessions that stream twenty deltas a second each, and another process that appends to all of them meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartGuard
from tests.support.busy_gateway import name
from tests.support.guard import ROOT, environment
from tests.support.machine import FULL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

SESSIONS = 8
DELTAS = 20
SECONDS = 600 if FULL else 60


def start(what: str, directory: Path, rate: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.support.busy_gateway", what, str(directory), str(SESSIONS)]
    return subprocess.Popen(
        [*words, str(SECONDS), str(rate)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )


def test_no_turn_dies_and_nothing_is_lost_under_load(
    start_guard: StartGuard, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = start_guard("--policy", "openclaw", "--mode", "enforce")
    agent = start("agent", guard.directory, DELTAS)
    wait_for(lambda: len(list(guard.directory.glob("*.jsonl"))) == SESSIONS, "all sessions to have begun")
    foreign = start("foreign", guard.directory, 2)
    said, _ = agent.communicate()
    wrote, _ = foreign.communicate()
    assert (agent.returncode, foreign.returncode) == (0, 0)
    done, others = json.loads(said), json.loads(wrote)
    wait_for(lambda: not guard.status()["branches"]["open"], "branches to be rebased", 60)
    for number in range(SESSIONS):
        lines = (guard.directory / name(number)).read_bytes().splitlines()
        found = {each["id"]: each for each in map(json.loads, lines)}
        assert len(found) == len(lines), "twice"
        acknowledged = {*done["ids"][name(number)], *others["ids"][name(number)]}
        assert acknowledged == found.keys() - {f"s{number}"}
        way, at = set(), json.loads(lines[-1])["id"]
        while at in found:
            way.add(at)
            at = found[at].get("parentId")
        assert acknowledged <= way, "forgotten"
    status = guard.status()
    with capsys.disabled():
        print(
            f"\n{SESSIONS} sessions, {DELTAS} deltas a second each, {SECONDS} s: {done['turns']} turns, "
            f"{done['deaths']} deaths, {done['cycles']} lock cycles, p50 {done['p50']:.1f} ms, "
            f"p99 {done['p99']:.1f} ms, max {done['max']:.0f} ms; {status['branches']['merged']} branches rebased, "
            f"{status['fences']['saved']} turns saved"
        )
    assert done["deaths"] == 0
    assert status["internal_errors"]["count"] == 0
    assert (status["branches"]["failed"], status["branches"]["passed"]) == (0, 0)
