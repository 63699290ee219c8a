"""A transcript with a further name, as sync and backup tools give it: who did what to it is still told."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import StartGuard
from tests.mount.test_fences import fences
from tests.support.agent import NAME, Agent
from tests.support.guard import GUARDFS, Guard

pytestmark = pytest.mark.mount

COPY = "copy.syncing"


@pytest.fixture
def guard(start_guard: StartGuard) -> Guard:
    return start_guard("--policy", "openclaw")


@pytest.fixture
def agent(guard: Guard) -> Agent:
    (guard.directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    return Agent(guard.directory)


def culprit(guard: Guard) -> tuple[str, str, bool]:
    """Of the only incident: its kind, what was done, whether by a process that is not this one."""
    (incident,) = [event for event in fences(guard) if event["op"] == "incident"]
    by = incident["culprit"].get("by", {"tgid": 0})
    return incident["kind"], incident["culprit"]["change"], by["tgid"] not in (0, os.getpid())


def culprit_id(guard: Guard) -> int:
    (incident,) = [event for event in fences(guard) if event["op"] == "incident"]
    tid: int = incident["culprit"]["by"]["tid"]
    return tid


def test_a_turn_on_a_transcript_with_a_further_name_is_seen_as_any_other(guard: Guard, agent: Agent) -> None:
    os.link(agent.path, guard.directory / COPY)
    agent.begin()
    assert guard.status()["fences"]["list"][0]["path"] == NAME
    agent.delta()
    agent.end()
    told = [(event["change"], event.get("reason")) for event in fences(guard)]
    assert told == [("opened", None), ("closed", "closed")]
    assert {event["path"] for event in guard.settle() if event["op"] == "write" and "record" in event} == {
        NAME
    }


def test_whoever_takes_the_further_name_away_is_named(guard: Guard, agent: Agent) -> None:
    os.link(agent.path, guard.directory / COPY)
    agent.begin()
    subprocess.run(["rm", guard.directory / COPY], check=True)
    agent.end()
    assert culprit(guard) == ("metadata", "attributes", True)
    shown = subprocess.run(
        [*GUARDFS, "incidents", guard.directory], env=guard.env, capture_output=True, text=True
    )
    assert f"rm[{culprit_id(guard)}]" in shown.stdout and f"unlink {COPY}; " in shown.stdout, shown.stderr


def test_whoever_renames_the_further_name_is_named(guard: Guard, agent: Agent) -> None:
    os.link(agent.path, guard.directory / COPY)
    agent.begin()
    subprocess.run(["mv", guard.directory / COPY, guard.directory / "elsewhere"], check=True)
    agent.end()
    assert culprit(guard) == ("metadata", "attributes", True)


def test_whoever_appends_through_the_further_name_is_named(guard: Guard, agent: Agent) -> None:
    os.link(agent.path, guard.directory / COPY)
    agent.begin()
    subprocess.run(["sh", "-c", f"echo '{{}}' >> {guard.directory / COPY}"], check=True)
    agent.end()
    assert culprit(guard) == ("lane", "append", True)
