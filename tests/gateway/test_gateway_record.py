"""A real OpenClaw on a guarded directory: nothing is changed, everything is told, nothing stays behind.

The same clean turns run on three gateways at once: without a guard, recorded, enforced; the tests look at what came of
them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import foreign
from tests.gateway.conftest import StartGateway, running
from tests.gateway.figures import figure
from tests.gateway.gateway import Gateway, Turn
from tests.gateway.install import Install
from tests.gateway.outcome import lost, stale, stories
from tests.gateway.reach import History
from tests.gateway.sameness import listing, told
from tests.gateway.snapshot import snapshot
from tests.support.guard import GUARDFS, Guard, events_of
from tests.support.machine import FULL
from tests.support.mounts import mounts_below
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

SESSIONS = [f"agent:main:clean-{n}" for n in range(4 if FULL else 2)]
TURNS = 25 if FULL else 5
"""In each session."""

KEY = "agent:main:record"


@dataclass(frozen=True)
class Clean:
    """A gateway after its clean turns. threads: of its process, at the end of them."""

    gateway: Gateway
    turns: dict[str, list[Turn]]
    transcripts: dict[str, Path]
    threads: frozenset[int]

    @property
    def pid(self) -> int:
        """The gateway's process."""
        assert self.gateway.process is not None
        return self.gateway.process.pid


def clean_turns(gateway: Gateway) -> Clean:
    """All turns of all sessions; sessions at the same time, as many as there are. Some turns call a tool, and each
    session is compacted before its last turn."""

    def session(key: str) -> list[Turn]:
        call = '[tool=exec {"command": "echo done"}]'
        done = []
        for n in range(TURNS):
            if n == TURNS - 1:
                gateway.wait_released(key)
                assert gateway.ask("sessions.compact", key=key)["compacted"]
            more = call if n % 5 == 2 else ""
            done.append(gateway.turn(key, f"question {n}. [say=answer{n}.] {more}"))
        return done

    with ThreadPoolExecutor(len(SESSIONS)) as pool:
        turns = dict(zip(SESSIONS, pool.map(session, SESSIONS), strict=True))
    gateway.wait_quiet()
    assert gateway.process is not None
    threads = frozenset(int(name) for name in os.listdir(f"/proc/{gateway.process.pid}/task"))
    transcripts = {key: gateway.session_file(key) for key in SESSIONS}
    found = {key: path for key, path in transcripts.items() if path is not None}
    return Clean(gateway, turns, found, threads)


PLAIN, RECORDED, ENFORCED = HOW = ("without the guard", "recorded", "enforced")


@dataclass(frozen=True)
class Trio:
    """The same turns without a guard, recorded and enforced. events: the guards' logs after them."""

    clean: dict[str, Clean]
    guards: dict[str, Guard]
    events: dict[str, list[dict[str, Any]]]

    @property
    def guarded(self) -> Clean:
        """The recorded one."""
        return self.clean[RECORDED]


@pytest.fixture(scope="module")
def trio(openclaw: Install, module_place: Path) -> Iterator[Trio]:
    enforce = "--policy", "openclaw", "--mode", "enforce"
    with (
        running(openclaw, module_place / "plain", guarded=False) as (plain, _, _),
        running(openclaw, module_place / "recorded") as (recorded, recording, _),
        running(openclaw, module_place / "enforced", *enforce) as (enforced, enforcing, _),
        ThreadPoolExecutor(3) as pool,
    ):
        clean = dict(zip(HOW, pool.map(clean_turns, (plain, recorded, enforced)), strict=True))
        guards = {RECORDED: recording, ENFORCED: enforcing}
        wait_for(lambda: enforcing.status()["branches"]["open"] == 0, "branches to be rebased")
        found = Trio(clean, guards, {how: guard.settle() for how, guard in guards.items()})
        counts = ", ".join(f"{stale(lost(each.gateway))} {how}" for how, each in clean.items())
        figure(f"clean turns, {len(SESSIONS) * TURNS} each: died of a stale lock file: {counts}")
        yield found


def unlucky(clean: Clean) -> set[str]:
    """The sessions in which a turn died of `file lock stale`, the gateway's own race, which is counted apart."""
    return {one.session for one in lost(clean.gateway) if one.stale}


@pytest.mark.parametrize("how", HOW)
def test_every_clean_turn_succeeds_and_is_remembered(trio: Trio, how: str) -> None:
    """Without the guard this is the baseline: where it fails, nothing else here says anything about the guard."""
    clean = trio.clean[how]
    assert [one for one in lost(clean.gateway) if not one.stale] == []
    for key in set(SESSIONS) - unlucky(clean):
        said = [(turn.status, turn.text) for turn in clean.turns[key]]
        assert said == [(200, f"reply:answer{n}.") for n in range(TURNS)], clean.gateway.log_tail()
        history = History.of(clean.transcripts[key])
        assert (history.forgotten(), history.duplicates(), history.unparsable) == ([], [], 0)
        assert sum(record["type"] == "compaction" for record in history.records) == 1
        for n in range(TURNS):
            assert history.holds(f"question {n}.") == history.holds(f'"reply:answer{n}."') == 1


@pytest.mark.parametrize("how", (RECORDED, ENFORCED))
def test_the_transcripts_are_the_same_up_to_ids_and_times(trio: Trio, how: str) -> None:
    plain, guarded = trio.clean[PLAIN], trio.clean[how]
    same = set(SESSIONS) - unlucky(plain) - unlucky(guarded)
    assert same
    for key in same:
        assert told(guarded.gateway, guarded.transcripts[key]) == told(plain.gateway, plain.transcripts[key])
    assert listing(guarded.gateway) == listing(plain.gateway)


@pytest.mark.parametrize("how", (RECORDED, ENFORCED))
def test_clean_turns_leave_no_incident_and_no_open_fence(trio: Trio, how: str) -> None:
    guard = trio.guards[how]
    for op in ("incident", "forgotten", "stale", "lock"):
        assert stories(trio.events[how], op=op) == []
    wait_for(lambda: guard.status()["fences"]["open"] == 0, "fences to close")
    fences = stories(guard.settle(), op="fence")
    assert {e["reason"] for e in fences if e["change"] == "closed"} == {"closed"}
    assert len(fences) >= 2 * len(SESSIONS) * TURNS, "each turn opens one, and closes it"


def test_enforcing_puts_nothing_aside_that_nobody_disturbs(trio: Trio) -> None:
    status = trio.guards[ENFORCED].status()
    assert status["internal_errors"]["count"] == 0
    assert [status["branches"][what] for what in ("open", "failed", "conflicts", "passed")] == [0, 0, 0, 0]


def test_each_append_names_its_thread(trio: Trio) -> None:
    clean, events = trio.guarded, trio.events[RECORDED]
    for transcript in clean.transcripts.values():
        writes = writes_to(events, transcript)
        assert len(writes) >= 2 * TURNS, "a turn appends the user's record and the assistant's"
        assert any(event["writer"]["main"] for event in writes), "the run itself appends from the main thread"
        for event in writes:
            writer = event["writer"]
            assert writer["tgid"] == clean.pid
            assert writer["tid"] in clean.threads
            assert writer["main"] is (writer["tid"] == clean.pid)
            assert writer["comm"] == ("openclaw" if writer["main"] else "libuv-worker")
            assert writer["exe"] == str(clean.gateway.install.node.resolve())
            assert event["append"] is True
        assert sum(event["bytes"] for event in writes) == transcript.stat().st_size
        assert [event["offset"] for event in writes] == _running_sums([event["bytes"] for event in writes])

        # The kernel may cut one append in two where a page ends: the first event then tells of a part only.
        records = [r for event in writes for r in event.get("records", [event.get("record", {})])]
        records = [r for r in records if r and not r.get("part")]
        history = History.of(transcript)
        ids = [r["id"] for r in records if r["type"] != "session"]
        assert ids == [entry["id"] for entry in history.records]
        assert [r.get("role") for r in records] == [None] * history.headers + [
            entry.get("message", {}).get("role") for entry in history.records
        ]


def test_each_lock_file_is_made_and_removed_by_a_pool_thread(trio: Trio) -> None:
    for transcript in trio.guarded.transcripts.values():
        locks = [e for e in trio.events[RECORDED] if e.get("path") == f"{transcript.name}.lock"]
        created = [e for e in locks if e["op"] == "create" and not e["errno"]]
        removed = [e for e in locks if e["op"] == "unlink" and not e["errno"]]
        assert len(created) == len(removed) >= TURNS
        assert {e["writer"]["tgid"] for e in created} == {trio.guarded.pid}
        assert not any(e["writer"]["main"] for e in created)


def writes_to(events: list[dict[str, Any]], transcript: Path) -> list[dict[str, Any]]:
    """The events of the writes to *transcript* that succeeded."""
    return [e for e in events if e["op"] == "write" and not e["errno"] and e["path"] == transcript.name]


def _running_sums(sizes: list[int]) -> list[int]:
    return [sum(sizes[:n]) for n in range(len(sizes))]


def test_the_writer_that_kills_a_turn_is_named_without_any_policy(trio: Trio) -> None:
    """Recording does not save the turn; it tells the operator who took it."""
    gateway, model = trio.guarded.gateway, trio.guarded.gateway.model
    assert gateway.turn(KEY, "first [say=first]").ok
    transcript = gateway.session_file(KEY)
    assert transcript is not None
    dying = gateway.turn_async(KEY, "second [say=second] [hold=0]")
    model.wait_held("second")
    gateway.wait_released(KEY)
    culprit = foreign.change(transcript, "append", "user")
    model.release("second")
    assert not dying.result().ok
    assert [one.session for one in lost(gateway)] == [KEY]

    events = trio.guards[RECORDED].settle()
    [named] = [e for e in writes_to(events, transcript) if e.get("record", {}).get("id") == culprit["id"]]
    assert named["writer"]["tgid"] == culprit["pid"]
    assert named["writer"]["exe"] == os.path.realpath(sys.executable)
    assert named["record"]["parent"] == culprit["parent"]
    [incident] = stories(events, transcript)
    assert incident["culprit"]["by"]["tgid"] == culprit["pid"]


def test_after_the_unmount_the_same_files_lie_in_a_plain_directory(trio: Trio) -> None:
    """The last test on this guard."""
    gateway, guard = trio.guarded.gateway, trio.guards[RECORDED]
    gateway.stop()
    through_the_mount = snapshot(gateway.sessions)
    assert guard.unmount() == 0, guard.said()
    assert mounts_below(gateway.sessions) == []
    assert snapshot(gateway.sessions) == through_the_mount


def test_run_mounts_starts_the_gateway_and_leaves_a_plain_directory(
    start_gateway: StartGateway, place: Path
) -> None:
    sessions = place / "home-0/.openclaw/agents/main/sessions"
    audit = place / "run-audit.jsonl"
    options = ["--sessions", str(sessions), "--state", str(place / "run-state"), "--audit", str(audit)]
    gateway = start_gateway(prefix=[*GUARDFS, "run", *options, "--"])
    assert gateway.sessions == sessions
    assert mounts_below(sessions) == [sessions]
    for n in range(2):
        assert gateway.turn(KEY, f"question {n}. [say=answer{n}.]").ok, gateway.log_tail()
    gateway.wait_quiet()
    transcript = gateway.session_file(KEY)
    assert transcript is not None
    through_the_mount = snapshot(sessions)
    status = gateway.stop()
    assert mounts_below(sessions) == []
    assert status == 0, f"the gateway ends with 0 on SIGTERM, and so must run: {status}\n{gateway.log_tail()}"
    after = snapshot(sessions)
    assert set(through_the_mount) <= set(after)
    assert after[transcript.name] == through_the_mount[transcript.name]
    assert sum(e["bytes"] for e in writes_to(events_of(audit), transcript)) == transcript.stat().st_size
    verify = [*GUARDFS, "audit", "verify", "--audit", str(audit)]
    verified = subprocess.run(verify, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr
