"""A real gateway on a guarded directory, enforcing, whose daemon is killed again and again while turns run and others
change their transcripts: the device number stays, no turn dies, and no record is lost, doubled or torn."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.gateway.conftest import Site, running
from tests.gateway.figures import figure
from tests.gateway.install import Install
from tests.gateway.outcome import lost, stale, stories, table, tallies
from tests.gateway.play import Played, play_all
from tests.gateway.rows import ROWS
from tests.gateway.test_gateway_enforce import Story, _faults
from tests.support.guard import Guard
from tests.support.machine import FULL
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

SHORT = {"user, early", "assistant", "chmod", "replace", "new", "compact", "user, racing"}
"""Rows of a short run."""

KILLS = int(os.environ.get("GUARDFS_KILLS") or (200 if FULL else 10))


@dataclass
class Killer:
    """Kills daemon after daemon, at moments that have nothing to do with what the gateway does. took: what each
    take-over took, ms."""

    guard: Guard
    kills: int = 0
    devices: set[int] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None

    def run(self) -> None:
        chance = random.Random(6)
        try:
            while self.kills < KILLS and not self.over.wait(0.3 + chance.random() * 1.5):
                os.kill(self.guard.daemon, signal.SIGKILL)
                self.kills += 1
                found = wait_for(
                    lambda: (status := self.guard.status())["daemon"]["restarts"] == self.kills and status,
                    "another daemon",
                    120,
                )
                self.guard.daemon = found["daemon"]["pid"]
                self.devices.add(os.stat(self.guard.directory).st_dev)
        except BaseException as error:
            self.failure = error


@pytest.fixture(scope="module")
def survivor(openclaw: Install, module_place: Path) -> Iterator[Site]:
    options = ("--policy", "openclaw", "--mode", "enforce", "--max-deaths", "100000")
    with running(openclaw, module_place, *options) as parts:
        site = Site(*parts)
        site.guard.expected = ["the daemon ended with signal SIGKILL", r"\(signal SIGKILL\)"]
        yield site


def test_no_turn_notices(survivor: Site) -> None:
    guard, gateway = survivor.guard, survivor.gateway
    device = os.stat(guard.directory).st_dev
    killer = Killer(guard)
    thread = threading.Thread(target=killer.run)
    thread.start()
    names = {row.name for row in ROWS} if FULL else SHORT
    wanted = [
        row for row in ROWS if row.name in names and row.name != "inject"
    ]  # that one has doubts of its own
    more = 0
    try:
        rows = play_all(gateway, survivor.model, wanted, max(1, KILLS // 30))
        while killer.kills < KILLS and thread.is_alive():
            more += 1
            turn = gateway.turn(
                f"agent:main:more-{more % 7}", f"more-{more}. [say=more] [chunks=20] [seconds=1]"
            )
            assert turn.ok or stale(lost(gateway)), f"{turn}\n{gateway.log_tail()}"
    finally:
        killer.over.set()
        thread.join()
    if killer.failure is not None:
        raise killer.failure
    assert killer.devices == {device}
    gateway.wait_quiet()
    wait_for(lambda: guard.status()["branches"]["open"] == 0, "branches to be rebased")
    faults = _all_faults(survivor, rows)
    assert not faults, "\n".join(faults)
    events = guard.settle()
    takeovers = [event for event in events if event["op"] == "takeover"]
    assert [event for event in takeovers if "lost" in event] == []
    assert [event for event in stories(events) if event["outcome"] == "lost"] == []
    took = sorted(event["took_ms"] for event in takeovers)
    figure(
        f"{killer.kills} kills of the daemon under a gateway: {sum(map(len, rows.values()))} rows, {more} more turns, "
        f"{len(lost(gateway))} turns lost ({stale(lost(gateway))} by a stale lock file); take-overs took "
        f"{took[len(took) // 2]} ms (median), {took[-1]} ms at most, "
        f"{sum(event['resent'] for event in takeovers)} requests were sent again"
    )
    figure(table("guarded, enforcing, daemon killed", tallies(rows, lost(gateway), events)))
    assert killer.kills >= KILLS


def _all_faults(site: Site, rows: dict[str, list[Future[Played]]]) -> list[str]:
    story = Story(site, rows, lost(site.gateway), [])
    return [
        fault for futures in rows.values() for future in futures for fault in _faults(story, future.result())
    ]
