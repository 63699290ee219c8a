"""The same race twice: without a guard, and with one that enforces. What it cost is counted in the files themselves."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import NamedTuple

import demo_show as show
from demo_guard import HERE, DemoError, Guarded, Process
from rich.console import Console
from rich.table import Table

SECONDS = 6.0
"""How long the writers race each time; some ten turns."""

WRITERS_DONE = 60.0


class Outcome(NamedTuple):
    """What one race came to. turns: user messages that the gateway took; lost: replies that died; records: of all
    writers; forgotten: those that no path from the leaf leads to."""

    turns: int
    lost: int
    records: int
    forgotten: int
    seconds: float


def race(guard: Guarded) -> Outcome:
    """A gateway with two sessions, a second agent, a cron job and a sync tool, for a while."""
    log, writers = os.path.join(guard.home, "race.log"), os.path.join(HERE, "writers")
    begun = time.monotonic()
    gateway = guard.start(sys.executable, os.path.join(writers, "gateway.py"), guard.sessions, log)
    chat, other = (os.path.join(guard.sessions, name) for name in transcripts(guard, gateway))
    others = [
        guard.start(sys.executable, os.path.join(writers, "agent.py"), other, "1000"),
        guard.start(os.path.join(writers, "cron.sh"), chat, "1000"),
        guard.start(os.path.join(writers, "sync.sh"), other, "1000"),
    ]
    time.sleep(SECONDS)
    for process in [*others, gateway]:  # what is under way is their last
        process.popen.terminate()
        if process.finish(WRITERS_DONE):
            raise DemoError(f"{process.name}: a writer failed: {' '.join(process.lines[-3:])}")
    seconds = time.monotonic() - begun
    if os.path.ismount(guard.sessions):
        guard.command("flush", guard.name)
    with open(log, encoding="utf-8") as file:
        lost = sum("lane=session:" in line for line in file)
    counted = [count(path) for path in (chat, other)]
    return Outcome(
        sum(turns for turns, _, _ in counted),
        lost,
        sum(records for _, records, _ in counted),
        sum(forgotten for _, _, forgotten in counted),
        seconds,
    )


def transcripts(guard: Guarded, gateway: Process) -> list[str]:
    """The names of the gateway's transcripts, once its registry says that they are there."""
    registry = os.path.join(guard.sessions, "sessions.json")
    deadline = time.monotonic() + WRITERS_DONE
    while not os.path.exists(registry):
        if gateway.popen.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"the gateway did not start: {' '.join(gateway.lines[-3:])}")
        time.sleep(0.02)
    with open(registry, encoding="utf-8") as file:
        return [entry["sessionId"] + ".jsonl" for entry in json.load(file).values()]


def count(path: str) -> tuple[int, int, int]:
    """Of one transcript, read with nothing but a JSON parser: user messages, records, forgotten ones."""
    with open(path, encoding="utf-8") as file:
        found = [entry for entry in map(json.loads, file) if entry["type"] != "session"]
    by_id = {entry["id"]: entry for entry in found}
    way, at = set(), found[-1]["id"] if found else None
    while at in by_id and at not in way:
        way.add(at)
        at = by_id[at].get("parentId")
    turns = sum(entry.get("message", {}).get("role") == "user" for entry in found)
    return turns, len(found), len(found) - len(way)


def show_race(console: Console) -> None:
    """Both, side by side."""
    show.title(
        console,
        "7. The same, enforced",
        "What others write while a reply streams waits on a branch, and is rebased when the turn is over.",
    )
    with Guarded() as plain:
        without = race(plain)
    with Guarded() as guard:
        console.print("$ guardfs mount sessions --policy openclaw --mode enforce", style="bold")
        guard.mount("--policy", "openclaw", "--mode", "enforce")
        enforced = race(guard)
        guard.unmount()
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("without", justify="right")
    table.add_column("enforced", justify="right")
    rows = (
        ("user messages", without.turns, enforced.turns, ""),
        ("replies lost", without.lost, enforced.lost, "bold red"),
        ("records", without.records, enforced.records, ""),
        ("records forgotten", without.forgotten, enforced.forgotten, "bold red"),
    )
    for name, before, after, style in rows:
        table.add_row(name, f"[{style}]{before}[/]" if before and style else f"{before}", f"{after}")
    table.add_row("seconds", f"{without.seconds:.1f}", f"{enforced.seconds:.1f}")
    console.print(table)
    if enforced.lost:
        raise DemoError(f"{enforced.lost} replies were lost although the guard enforces")
