"""A real OpenClaw under `--policy openclaw`: each line of work in its lane, each event with the rule that decided."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardfs.policy.load import load
from tests.gateway import foreign
from tests.gateway.conftest import StartGateway, StartGuard
from tests.gateway.gateway import Gateway
from tests.gateway.reach import History
from tests.support.guard import Guard

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

KEY = "agent:main:lanes"
Event = dict[str, Any]


@pytest.fixture
def guarded(start_gateway: StartGateway, start_guard: StartGuard) -> tuple[Gateway, Guard]:
    guards: list[Guard] = []
    gateway = start_gateway(
        before=lambda sessions: guards.append(start_guard(sessions, "--policy", "openclaw"))
    )
    return gateway, guards[0]


def operations(guard: Guard) -> list[Event]:
    """What was done below the mount, as the log tells it."""
    return [event for event in guard.settle() if "writer" in event]


def lanes(found: list[Event], wanted: Callable[[Event], bool]) -> set[str]:
    """The lanes of the events that are *wanted*; there must be some."""
    chosen = [event for event in found if wanted(event) and not event["errno"]]
    assert chosen, "no such event"
    return {event["lane"] for event in chosen}


def of_record(found: list[Event], record_id: str) -> Event:
    """The event of the write of one record."""

    def holds(event: Event) -> bool:
        told = event.get("records") or [event.get("record") or {}]
        return event["op"] == "write" and any(record.get("id") == record_id for record in told)

    [event] = [event for event in found if holds(event)]
    return event


def test_each_line_of_work_of_the_gateway_has_its_lane(guarded: tuple[Gateway, Guard]) -> None:
    gateway, guard = guarded
    assert gateway.turn(KEY, "first [say=first]").ok
    gateway.wait_quiet()
    injected = gateway.ask("chat.inject", sessionKey=KEY, message="a note")["messageId"]
    assert gateway.turn(KEY, "second [say=second]").ok
    gateway.wait_quiet()
    transcript = gateway.session_file(KEY)
    assert transcript is not None
    history = History.of(transcript)
    culprit = foreign.change(transcript, "append", "custom")
    gateway.ask("chat.send", sessionKey=KEY, message="/new")
    gateway.wait_quiet()
    after = gateway.session_file(KEY)
    assert after is not None
    assert after != transcript
    assert gateway.turn(KEY, "third [say=third]").ok
    gateway.wait_quiet()
    gateway.stop()
    found = operations(guard)

    # the run: every record but the injected one, on the main thread; and its mirror
    for record in history.records:
        event = of_record(found, record["id"])
        assert event["lane"] == ("gateway:mirror" if record["id"] == injected else "gateway:run"), event
        assert event["session"] == KEY, "the registry names the session of this transcript"
    assert {record["message"]["role"] for record in history.records if "message" in record} >= {
        "user",
        "assistant",
    }
    mirrored = of_record(found, injected)
    assert "record.id" in mirrored["evidence"]
    assert (mirrored["record"]["provider"], mirrored["record"]["model"]) == ("openclaw", "gateway-injected")
    assert not mirrored["writer"]["main"]

    # a foreign process has the name of what runs, and the session that it wrote to
    event = of_record(found, culprit["id"])
    assert (event["lane"], event["evidence"]) == ("foreign", ["label"])
    assert event["session"] == KEY

    # /new: the old file renamed away, the next one made outside a lock, greeted by a mirror
    assert lanes(found, lambda e: e["op"] == "rename" and ".jsonl.reset." in e["to"]) == {"gateway:reset"}
    made = [e for e in found if e["op"] == "create" and e["path"] == after.name]
    assert [event["lane"] for event in made] == ["gateway:header"]
    greeting = next(
        e for e in found if e["path"] == after.name and e.get("record", {}).get("role") == "assistant"
    )
    assert greeting["lane"] == "gateway:mirror"
    last = [e for e in found if e["op"] == "write" and e["path"] == after.name][-1]
    assert (last["lane"], last["session"]) == ("gateway:run", KEY)

    # beside the transcripts
    assert lanes(found, lambda e: e.get("to") == "sessions.json") == {"gateway:registry"}
    assert lanes(found, lambda e: e["path"].endswith(".trajectory.jsonl")) == {"gateway:trajectory"}
    assert lanes(found, lambda e: e["path"].endswith(".lock")) == {"gateway"}
    looked = lanes(found, lambda e: e["op"] == "look" and e["path"] == transcript.name)
    assert looked >= {"gateway", "foreign"}, "the test itself looks, too"

    # nothing of the gateway's own is left without a name, and every event names its rule
    pid = mirrored["writer"]["tgid"]
    assert {e["lane"].partition(":")[0] for e in found if e["writer"]["tgid"] == pid} == {"gateway"}
    unlocked = [
        e for e in found if e["lane"] in ("gateway:unlocked", "gateway:maintenance", "gateway:control")
    ]
    assert unlocked == [], "none of this happens in ordinary turns"
    names = {rule.name for rule in load("openclaw").policy.rules}
    assert {event["rule"] for event in found} <= names
    assert {event["verdict"] for event in found} == {"allow"}
    assert of_record(found, history.records[-1]["id"])["rule"] == "nobody relies on it now"


def test_other_processes_of_openclaw_have_lanes_of_their_own(
    guarded: tuple[Gateway, Guard], place: Path
) -> None:
    gateway, guard = guarded
    marks = gateway.sessions / "mark"
    command = json.dumps({"command": f"echo x >> {marks}; cp {marks} {marks}-2"})
    assert gateway.turn(KEY, f"first [tool=exec {command}] [say=first]").ok
    gateway.wait_quiet()
    transcript = gateway.session_file(KEY)
    assert transcript is not None
    before = len(History.of(transcript).records)

    def run(*words: str) -> None:
        done = subprocess.run(
            gateway.install.command(*words), env=gateway.environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("agent", "--local", "--session-id", transcript.stem, "--message", "second [say=second]", "--json")
    os.chmod(gateway.sessions, 0o755)  # something for the next command to mend
    run("security", "audit", "--fix")
    added = History.of(transcript).records[before:]
    gateway.stop()
    found = operations(guard)

    assert lanes(found, lambda e: e["op"] in ("create", "write") and e["path"].startswith("mark")) == {"tool"}
    assert [of_record(found, record["id"])["lane"] for record in added] == ["cli:run"] * len(added)
    assert {of_record(found, record["id"])["session"] for record in added} == {KEY}
    assert len(added) >= 2
    cli = of_record(found, added[0]["id"])["writer"]["tgid"]
    assert {e["lane"].partition(":")[0] for e in found if e["writer"]["tgid"] == cli} == {"cli"}
    mended = [e for e in found if e["op"] == "attributes" and e["lane"] == "audit-fix"]
    assert mended
