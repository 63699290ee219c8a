"""`guardfs run` as PID 1: orphans, signals, exit statuses, an end that loses nothing. And the same where it is not."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.agent import NAME, record
from tests.support.container import Container, children
from tests.support.lab import path_from_leaf
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"
APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"
HEADER = b'{"type":"session","id":"s"}\n'

both = pytest.mark.parametrize("first", [True, False], ids=["PID-1", "subreaper"])


def zombies(pid: int) -> list[int]:
    """Children of *pid* that have ended and were not waited for."""
    found = []
    for child in children(pid):
        try:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(child)
        except OSError:
            pass
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@both
def test_orphans_are_reaped_while_the_command_runs(place: Path, first: bool) -> None:
    leave = place / "leave"
    os.mkfifo(leave)
    # sh starts a process and ends: that process is an orphan, until it reads a line
    script = f"sh -c '(read line < {leave}; exit 9) &'; echo started; sleep 600 & wait"
    with Container(place, ["sh", "-c", script], "--force", first=first) as run:
        run.wait_said("started")
        daemon, command, orphan = wait_for(
            lambda: found if len(found := children(run.first_pid)) == 3 else [], "an orphan to come"
        )
        assert parent_of(orphan) == parent_of(daemon) == parent_of(command) == run.first_pid
        leave.write_text("\n")
        wait_for(lambda: not os.path.exists(f"/proc/{orphan}"), "the orphan to be reaped")
        assert zombies(run.first_pid) == []
        assert children(run.first_pid) == [daemon, command]
        run.send(signal.SIGTERM)
        assert run.ended() == 128 + signal.SIGTERM


@both
@pytest.mark.parametrize(("end", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_commands_status_is_its_own_among_many_orphans(
    place: Path, first: bool, end: str, status: int
) -> None:
    script = f"i=0; while [ $i -lt 60 ]; do sh -c '(exit 3) &'; i=$((i+1)); done; {end}"
    with Container(place, ["sh", "-c", script], "--force", first=first) as run:
        assert run.ended() == status
        assert "unmounted" in run.complained() and "ended with" not in run.complained()
    assert [event["op"] for event in run.events("stop")] == ["stop"]


def test_what_is_left_in_the_container_is_ended_before_the_mount_goes(place: Path) -> None:
    polite = "trap 'echo late >&5; exit' TERM; echo polite; while :; do sleep 0.02; done"
    deaf = "trap '' TERM; echo deaf; while :; do sleep 0.02; done"
    script = f"cd {place}/sessions; exec 5>>polite.jsonl; ({polite}) & ({deaf}) & read line < {place}/go"
    os.mkfifo(place / "go")
    # a policy that is followed: the daemon has a helper that reads it, which is not to be ended
    with Container(place, ["sh", "-c", script], "--force", "--policy", str(POLICY)) as run:
        run.wait_said("polite")
        run.wait_said("deaf")
        (place / "go").write_text("\n")
        assert run.ended() == 0
        assert "busy" not in run.complained(), "both were gone before the unmount"
        assert "sessions: unmounted" in run.complained() and "ERROR" not in run.complained()
    assert (run.directory / "polite.jsonl").read_text() == "late\n"
    assert run.events("stop"), "the daemon wrote its log to the end"


def test_sigterm_during_a_turn_ends_the_gateway_and_loses_nothing(place: Path) -> None:
    gateway = [sys.executable, "-m", "tests.support.turning", str(place / "sessions")]
    with Container(place, gateway, "--policy", str(POLICY), "--mode", "enforce", "--force") as run:
        run.wait_said("streaming")
        transcript = str(run.directory / NAME)
        run.inside(
            sys.executable, "-c", f"import sys\n{APPEND}", transcript, data=record("foreign1", "00000001")
        )
        assert b"foreign1" not in (place / "sessions" / NAME).read_bytes(), "staged: the turn relies on it"
        run.send(signal.SIGTERM)
        assert run.ended() == 128 + signal.SIGTERM
        assert "ended" in run.said(), "the gateway had the signal, and its time"
        assert "sessions: unmounted" in run.complained() and "although" not in run.complained()
    data = (place / "sessions" / NAME).read_bytes()
    assert path_from_leaf(data) == ["00000001", "00000002", "foreign1"]
    assert len(data.splitlines()) == 3
    assert [event["op"] for event in run.events("stop")] == ["stop"]


def test_the_lock_of_a_gateway_that_is_dead_does_not_keep_the_container(place: Path) -> None:
    gateway = [sys.executable, "-m", "tests.support.turning", str(place / "sessions"), "rude"]
    (place / "sessions").mkdir()
    os.utime(place / "sessions", (1_700_000_000, 1_700_000_000))
    with Container(place, gateway, "--timeout", "3600") as run:
        run.wait_said("streaming")
        run.send(signal.SIGTERM)
        assert run.ended() == 3, "and that within this test's time, not within 3600 s"
    assert (place / "sessions" / f"{NAME}.lock").exists()


@both
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_a_signal_before_the_command_starts_ends_it_all(place: Path, first: bool, name: str) -> None:
    sessions = place / "sessions"
    sessions.mkdir()
    holder = json.dumps({"pid": 1, "createdAt": "2026-05-23T03:37:47Z"})
    (sessions / "s.jsonl.lock").write_text(holder)
    number = getattr(signal, f"SIG{name}")
    with Container(place, ["touch", str(place / "ran")], "--timeout", "3600", first=first) as run:
        wait_for(lambda: _catches(run.first_pid, signal.SIGUSR1), "its handlers")
        run.send(number)
        assert run.ended() == 128 + number
        assert f"interrupted at start by SIG{name}" in run.complained()
    assert not (place / "ran").exists()


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal. SIGINT is no sign: Python has one from the beginning."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize("name", ["SIGWINCH", "SIGCONT", "SIGALRM", "SIGPWR", "SIGRTMIN+3"])
def test_every_signal_that_makes_sense_is_passed_on(place: Path, name: str) -> None:
    base, _, more = name.partition("+")
    number = getattr(signal, base) + int(more or 0)
    code = (
        "import signal, sys\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
        "print('ready', flush=True)\n"
        f"sys.exit(40 if signal.sigwait([{int(number)}]) == {int(number)} else 1)"
    )
    with Container(place, [sys.executable, "-c", code], "--force") as run:
        run.wait_said("ready")
        run.send(number)
        assert run.ended() == 40
