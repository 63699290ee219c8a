"""A real OpenClaw on a guarded directory: nothing is lost, everything is told, nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import foreign
from tests.gateway.conftest import StartGateway, StartGuard
from tests.gateway.gateway import Gateway
from tests.gateway.model import ModelServer
from tests.gateway.reach import History
from tests.gateway.snapshot import snapshot
from tests.support.guard import GUARDFS, Guard, events_of
from tests.support.mounts import mounts_below

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

TURNS = 10
FEW = TURNS if os.environ.get("GUARDFS_FULL") else 3
"""The guarded mount gets ten turns everywhere; the baseline and `run` three, unless all is asked for."""

KEY = "agent:main:record"


def all_turns_succeed(gateway: Gateway, turns: int) -> Path:
    """Every one of *turns* turns succeeds and is remembered; returns the transcript."""
    for n in range(turns):
        turn = gateway.turn(KEY, f"question {n}. [say=answer{n}.]")
        assert (turn.status, turn.text) == (200, f"reply:answer{n}."), gateway.log_tail()
    gateway.wait_quiet()
    assert gateway.errors() == []
    transcript = gateway.session_file(KEY)
    assert transcript is not None
    history = History.of(transcript)
    assert (history.forgotten(), history.duplicates(), history.unparsable) == ([], [], 0)
    for n in range(turns):
        assert history.holds(f"question {n}.") == 1
        assert history.holds(f'"reply:answer{n}."') == 1
    return transcript


def writes_to(guard_audit: Path, transcript: Path) -> list[dict[str, Any]]:
    """The events of the writes to *transcript* that succeeded."""
    every = events_of(guard_audit, lambda e: e["op"] == "write" and not e["errno"])
    return [event for event in every if event["path"] == transcript.name]


def test_unguarded_every_turn_succeeds(start_gateway: StartGateway) -> None:
    """The baseline: where this fails, the others say nothing about the guard."""
    all_turns_succeed(start_gateway(), FEW)


def test_guarded_ten_turns_of_ten_succeed_and_each_append_names_its_thread(
    start_gateway: StartGateway, start_guard: StartGuard
) -> None:
    guards: list[Guard] = []
    gateway = start_gateway(before=lambda sessions: guards.append(start_guard(sessions)))
    guard = guards[0]
    assert gateway.process is not None
    pid = gateway.process.pid
    transcript = all_turns_succeed(gateway, TURNS)
    threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    gateway.stop()
    through_the_mount = snapshot(gateway.sessions)
    assert guard.unmount() == 0, guard.said()
    assert mounts_below(gateway.sessions) == []
    assert snapshot(gateway.sessions) == through_the_mount

    writes = writes_to(guard.audit, transcript)
    assert len(writes) >= 2 * TURNS, "a turn appends the user's record and the assistant's"
    assert any(event["writer"]["main"] for event in writes), "the run itself appends from the main thread"
    for event in writes:
        writer = event["writer"]
        assert writer["tgid"] == pid
        assert writer["tid"] in threads
        assert writer["main"] is (writer["tid"] == pid)
        assert writer["comm"] == ("openclaw" if writer["main"] else "libuv-worker")
        assert writer["exe"] == str(gateway.install.node.resolve())
        assert event["append"] is True
    assert sum(event["bytes"] for event in writes) == transcript.stat().st_size
    assert [event["offset"] for event in writes] == _running_sums([event["bytes"] for event in writes])

    # The kernel may cut one append in two where a page ends: the first event then tells of a part only.
    told = [r for event in writes for r in event.get("records", [event.get("record", {})])]
    records = [r for r in told if r and not r.get("part")]
    history = History.of(transcript)
    assert [r["id"] for r in records if r["type"] != "session"] == [entry["id"] for entry in history.records]
    assert [r.get("role") for r in records] == [None] * history.headers + [
        entry.get("message", {}).get("role") for entry in history.records
    ]

    locks = events_of(guard.audit, lambda e: e.get("path") == f"{transcript.name}.lock")
    created = [e for e in locks if e["op"] == "create" and not e["errno"]]
    removed = [e for e in locks if e["op"] == "unlink" and not e["errno"]]
    assert len(created) == len(removed) >= TURNS
    assert {e["writer"]["tgid"] for e in created} == {pid}
    assert not any(e["writer"]["main"] for e in created), "the gateway makes lock files from its pool threads"


def _running_sums(sizes: list[int]) -> list[int]:
    return [sum(sizes[:n]) for n in range(len(sizes))]


def test_the_writer_that_kills_a_turn_is_named(
    start_gateway: StartGateway, start_guard: StartGuard, model: ModelServer
) -> None:
    """Recording does not save the turn; it tells the operator who took it."""
    guards: list[Guard] = []
    gateway = start_gateway(before=lambda sessions: guards.append(start_guard(sessions)))
    assert gateway.turn(KEY, "first [say=first]").ok
    transcript = gateway.session_file(KEY)
    assert transcript is not None
    dying = gateway.turn_async(KEY, "second [say=second] [seconds=3]")
    model.wait_streaming("second")
    culprit = foreign.change(transcript, "append", "user")
    assert not dying.result().ok
    assert any("session file changed" in line for line in gateway.errors())
    gateway.stop()
    assert guards[0].unmount() == 0

    writes = writes_to(guards[0].audit, transcript)
    [named] = [event for event in writes if event.get("record", {}).get("id") == culprit["id"]]
    assert named["writer"]["tgid"] == culprit["pid"]
    assert named["writer"]["exe"] == os.path.realpath(sys.executable)
    assert named["record"]["parent"] == culprit["parent"]


def test_run_mounts_starts_the_gateway_and_leaves_a_plain_directory(
    start_gateway: StartGateway, place: Path
) -> None:
    sessions = place / "home-0/.openclaw/agents/main/sessions"
    audit = place / "run-audit.jsonl"
    options = ["--sessions", str(sessions), "--state", str(place / "run-state"), "--audit", str(audit)]
    gateway = start_gateway(prefix=[*GUARDFS, "run", *options, "--"])
    assert gateway.sessions == sessions
    assert mounts_below(sessions) == [sessions]
    transcript = all_turns_succeed(gateway, FEW)
    through_the_mount = snapshot(sessions)
    status = gateway.stop()
    assert mounts_below(sessions) == []
    assert status == 0, f"the gateway ends with 0 on SIGTERM, and so must run: {status}\n{gateway.log_tail()}"
    after = snapshot(sessions)
    assert set(through_the_mount) <= set(after)
    assert after[transcript.name] == through_the_mount[transcript.name]
    writes = writes_to(audit, transcript)
    assert sum(event["bytes"] for event in writes) == transcript.stat().st_size
    verify = [*GUARDFS, "audit", "verify", "--audit", str(audit)]
    verified = subprocess.run(verify, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr
