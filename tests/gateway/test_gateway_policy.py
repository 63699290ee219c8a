"""A real OpenClaw under the policy `openclaw`: lanes, rules, and the policy edited while turns run.

One gateway for all tests here; what they leave in its log they tell apart by sessions.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guardfs.policy.load import load
from tests.gateway import foreign
from tests.gateway.conftest import running
from tests.gateway.figures import figure
from tests.gateway.gateway import Gateway, Turn
from tests.gateway.install import Install
from tests.gateway.outcome import lost, seconds_of
from tests.gateway.reach import History
from tests.support.bad_policies import BAD
from tests.support.guard import ROOT, Event, Guard
from tests.support.prober import probing
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

KEY = "agent:main:lanes"
OTHERS_KEY = "agent:main:others"
SESSIONS = 3
EDITS = 5
SHIPPED = ROOT / "policy/openclaw.toml"
LAST_RULE = "nobody relies on it now"


@pytest.fixture(scope="module")
def policy(module_place: Path) -> Path:
    """The shipped policy, where it can be edited."""
    path = module_place / "policy.toml"
    shutil.copy(SHIPPED, path)
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def guarded(openclaw: Install, module_place: Path, policy: Path) -> Iterator[tuple[Gateway, Guard]]:
    with running(openclaw, module_place, "--policy", str(policy)) as (gateway, guard, _):
        yield gateway, guard


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


def test_other_processes_of_openclaw_have_lanes_of_their_own(guarded: tuple[Gateway, Guard]) -> None:
    gateway, guard = guarded
    marks = gateway.sessions / "mark"
    command = json.dumps({"command": f"echo x >> {marks}; cp {marks} {marks}-2"})
    assert gateway.turn(OTHERS_KEY, f"first [tool=exec {command}] [say=first]").ok
    gateway.wait_quiet()
    transcript = gateway.session_file(OTHERS_KEY)
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
    found = operations(guard)

    assert lanes(found, lambda e: e["op"] in ("create", "write") and e["path"].startswith("mark")) == {"tool"}
    assert [of_record(found, record["id"])["lane"] for record in added] == ["cli:run"] * len(added)
    assert {of_record(found, record["id"])["session"] for record in added} == {OTHERS_KEY}
    assert len(added) >= 2
    cli = of_record(found, added[0]["id"])["writer"]["tgid"]
    assert {e["lane"].partition(":")[0] for e in found if e["writer"]["tgid"] == cli} == {"cli"}
    mended = [e for e in found if e["op"] == "attributes" and e["lane"] == "audit-fix"]
    assert mended


@contextmanager
def turns_running(gateway: Gateway) -> Iterator[None]:
    """Some sessions have one turn after the other while the block runs; all of them succeed."""
    done: list[Turn] = []
    enough = threading.Event()

    def session(key: str) -> None:
        while not enough.is_set():
            done.append(gateway.turn(key, "on and on [say=on] [seconds=0.5]"))

    begun = len(lost(gateway))
    threads = [threading.Thread(target=session, args=(f"agent:main:edit-{n}",)) for n in range(SESSIONS)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(done) >= SESSIONS, "the first turns", 120)
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    unlucky = [one for one in lost(gateway)[begun:] if one.stale]  # the gateway's own race is nobody's fault
    assert sum(not turn.ok for turn in done) == len(unlucky) == len(lost(gateway)) - begun, gateway.log_tail()


def has_rule(guard: Guard, name: str) -> bool:
    """Whether the policy in force has a rule of that name."""
    return name in guard.status()["policy"]["hits"]


def told_of_policy(guard: Guard, change: str) -> Event:
    """The last event that tells of such a change of the policy."""
    return [e for e in guard.settle() if e["op"] == "policy" and e["change"] == change][-1]


def put_back(guard: Guard, policy: Path) -> None:
    """The policy file says again what the shipped one says, and the guard knows."""
    policy.unlink(missing_ok=True)
    policy.write_text(SHIPPED.read_text())
    policy.chmod(0o644)
    wait_for(lambda: not guard.status()["policy"]["error"], "the guard to see that it is right again")
    wait_for(lambda: has_rule(guard, LAST_RULE), "the first text to be in force")


def test_a_good_change_is_in_force_while_turns_run_and_nothing_is_lost(
    guarded: tuple[Gateway, Guard], policy: Path
) -> None:
    gateway, guard = guarded
    text = policy.read_text()
    before = guard.status()["policy"]
    edits: list[tuple[float, float]] = []
    probe = gateway.sessions / "probe.jsonl"
    probe.touch()
    with probing(probe) as probed, turns_running(gateway):
        for n in range(EDITS):
            began = time.time()
            policy.write_text(text.replace(f'"{LAST_RULE}"', f'"edited {n}"'))
            wait_for(functools.partial(has_rule, guard, f"edited {n}"), "the change to be in force")
            edits.append((began, seconds_of(told_of_policy(guard, "loaded"))))
        put_back(guard, policy)
    status = guard.status()["policy"]
    assert (status["reloads"], status["refused"]) == (before["reloads"] + EDITS + 1, before["refused"])
    assert status["digest"] == before["digest"]

    # every operation was told, and decided by a rule that there was
    gateway.wait_quiet()
    events = guard.settle()
    looks = [e for e in events if e["op"] == "look" and e["writer"]["tgid"] == probed.pid]
    looks = [e for e in looks if e["path"] == probe.name]
    assert sum(e.get("count", 1) for e in looks) == len(probed.calls)
    for n in range(SESSIONS):
        transcript = gateway.session_file(f"agent:main:edit-{n}")
        assert transcript is not None
        told = [e for e in events if e["op"] == "write" and e["path"] == transcript.name and not e["errno"]]
        assert sum(event["bytes"] for event in told) == transcript.stat().st_size
    known = {rule.name for rule in load("openclaw").policy.rules} | {f"edited {n}" for n in range(EDITS)}
    assert {e["rule"] for e in events if "writer" in e} <= known
    assert [e for e in events if e["op"] in ("incident", "forgotten")] == []

    delays = [loaded - began for began, loaded in edits]
    slow = max(probed.slowest(began, loaded + 0.1) for began, loaded in edits) / 1000
    quiet = probed.slowest(0, edits[0][0]) / 1000
    figure(
        f"policy edits: in force after {min(delays):.2f} to {max(delays):.2f} s; slowest of {len(probed.calls)} looks:"
        f" {slow:.1f} ms while a change was taken over, {quiet:.1f} ms before"
    )


@pytest.mark.parametrize("name", BAD)
def test_a_bad_change_keeps_the_old_policy_while_turns_run_and_says_why(
    guarded: tuple[Gateway, Guard], busy: None, policy: Path, name: str
) -> None:
    _, guard = guarded
    guard.expected = [r"guardfs\[\d+\] ERROR"]
    spoil, said = BAD[name]
    before, known = guard.status()["policy"], len(guard.said())
    try:
        spoil(policy)
        wait_for(lambda: guard.status()["policy"]["refused"] > before["refused"], "the change to be refused")
        status, event = guard.status()["policy"], told_of_policy(guard, "refused")
        assert (status["digest"], event["old"]) == (before["digest"], before["digest"])
        assert status["refused"] == before["refused"] + 1
        assert status["error"]
        assert event["problems"]
        wait_for(
            lambda: re.search(said, guard.said()[known:]), f"a line with {said!r}: {guard.said()[known:]}"
        )
    finally:
        put_back(guard, policy)
    assert guard.status()["policy"]["reloads"] == before["reloads"]


@pytest.fixture(scope="module")
def busy(guarded: tuple[Gateway, Guard]) -> Iterator[None]:
    """Turns run for as long as there are tests that want them; all succeed."""
    with turns_running(guarded[0]):
        yield
