"""Deaths of a real gateway's turns: each is told, once, with the right culprit; and nothing else is told.

In record mode the turns die as they do without the guard: the same rows are played on a second gateway, which has none.
What counts as a death is what the gateway says itself. All rows are played before the first test looks, some turns at a
time. GUARDFS_ROW_RUNS plays each row that often.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from guardfs.cli.main import COMMANDS
from tests.gateway.conftest import Site, running
from tests.gateway.figures import figure
from tests.gateway.gateway import Gateway
from tests.gateway.install import MEASURED, Install
from tests.gateway.outcome import (
    Event,
    Lost,
    deaths,
    lost,
    seconds_of,
    stale,
    stories,
    table,
    tallies,
    wrong,
)
from tests.gateway.play import Played, play_all, runs
from tests.gateway.reach import History
from tests.gateway.rows import ROWS
from tests.support.guard import GUARDFS, environment
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

RUNS = runs(3)
PLAIN_RUNS = runs(1)
"""On the gateway without the guard."""


@dataclass(frozen=True)
class Story:
    """All that happened in this module. lost: turns, in the gateway's words; events: the audit log. plain, plain_lost:
    the same of the gateway without a guard."""

    site: Site
    rows: dict[str, list[Future[Played]]]
    lost: list[Lost]
    events: list[Event]
    plain: dict[str, list[Future[Played]]]
    plain_lost: list[Lost]


@pytest.fixture(scope="module")
def story(site: Site, plain: Gateway, request: pytest.FixtureRequest) -> Story:
    """The rows that this run of the tests asks for, played on both gateways at the same time."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    rows = [row for row in ROWS if {"name": row.name} in params] or ROWS
    with ThreadPoolExecutor(2) as pool:
        guarded = pool.submit(play_all, site.gateway, site.model, rows, RUNS)
        unguarded = pool.submit(play_all, plain, plain.model, rows, PLAIN_RUNS)
    for gateway in (site.gateway, plain):
        gateway.wait_quiet()
    events = site.guard.settle()
    story = Story(site, guarded.result(), lost(site.gateway), events, unguarded.result(), lost(plain))
    figure(table("without the guard", tallies(story.plain, story.plain_lost)))
    figure(table("guarded, record mode", tallies(story.rows, story.lost, events)))
    return story


@pytest.fixture(scope="module")
def plain(openclaw: Install, module_place: Path) -> Iterator[Gateway]:
    """A gateway whose directory nobody guards."""
    with running(openclaw, module_place / "plain", guarded=False) as (gateway, _, _):
        yield gateway


@pytest.mark.parametrize("name", [row.name for row in ROWS if row.dies is not None])
def test_a_turn_dies_as_without_the_guard(story: Story, name: str) -> None:
    def died(done: list[Future[Played]], among: list[Lost]) -> set[bool]:
        played = [future.result() for future in done]
        return {bool(deaths(among, one.transcript)) for one in played if not stale(among, one.key)}

    [dies] = [row.dies for row in ROWS if row.name == name]
    if story.site.gateway.install.version == MEASURED:
        assert died(story.plain[name], story.plain_lost) <= {dies}
        assert died(story.rows[name], story.lost) <= {dies}
    else:
        assert died(story.rows[name], story.lost) == died(story.plain[name], story.plain_lost)


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_each_death_is_told_with_its_culprit(story: Story, name: str) -> None:
    faults = [fault for future in story.rows[name] for fault in _faults(story, future.result())]
    assert not faults, "\n".join(faults)


def _faults(story: Story, one: Played) -> list[str]:
    """What is not as it must be after one turn of a row; a line each."""
    found = []
    died = deaths(story.lost, one.transcript)
    unlucky = stale(story.lost, one.key)
    told = stories(story.events, one.transcript)
    forgotten = stories(story.events, one.transcript, "forgotten")

    def expect(right: bool, what: str) -> None:
        if not right:
            found.append(f"{one.key}: {what}\n  incidents {told}\n  forgotten {forgotten}\n  turn {one.turn}")

    expect(len(died) == len(told), f"{len(died)} deaths, {len(told)} incidents")
    expect(one.turn.ok is not bool(died or unlucky), "the turn's answer and the gateway's log disagree")
    if one.row.dies is not None and not unlucky and story.site.gateway.install.version == MEASURED:
        expect(bool(died) is one.row.dies, "died" if died else "did not die")
    for each, death in zip(told, died, strict=False):
        # the check that failed came after the request and before the gateway's line, which is cut to milliseconds
        expect(one.began < seconds_of(each) < death.at + 0.001, f"{each['time']} is not when it died")
        expect((each["session"], death.session) == (one.key, one.key), "another session is named")
        expect(each["outcome"] == "lost", "it was lost")
        expect(
            each["owner"] == "gateway" and each["process"]["tgid"] == _pid(story), "another owner is named"
        )
        for fault in wrong(story.events, one, each["culprit"] or {}):
            expect(False, fault)
    dead_branch = (
        {record["id"] for record in History.of(one.transcript).forgotten()} if one.turn.ok else set()
    )
    if one.row.forgets and not unlucky:
        expect(dead_branch == {one.culprit.record}, f"on a dead branch are {dead_branch}")
    said = {record["id"] for event in forgotten for c in event["changes"] for record in c["records"]}
    expect(said == dead_branch and len(forgotten) == bool(said), "what is forgotten is told, once")
    for event in forgotten:
        for fault in wrong(story.events, one, event["changes"][0]):
            expect(False, fault)
    for what, turn in one.turns.items():
        expect(turn.ok or bool(unlucky), f"{what}: {turn}")
    return found


def _pid(story: Story) -> int:
    assert story.site.gateway.process is not None
    return story.site.gateway.process.pid


def test_no_fence_is_left_open(story: Story) -> None:
    """All fences close, with a reason; those of died turns by their death."""
    guard = story.site.guard
    wait_for(lambda: guard.status()["fences"]["open"] == 0, "fences to close")
    events = guard.settle()
    opened = [(e["path"], e["token"]) for e in stories(events, op="fence") if e["change"] == "opened"]
    closed = [(e["path"], e["token"]) for e in stories(events, op="fence") if e["change"] == "closed"]
    assert sorted(opened) == sorted(closed)
    assert len(set(opened)) == len(opened), "a token is given once"
    died = [e for e in stories(events, op="fence") if e.get("reason") == "died"]
    assert {(e["path"], e["token"]) for e in died} == {(e["path"], e["token"]) for e in stories(events)}
    for path in {path for path, _ in opened}:
        tokens = [token for name, token in opened if name == path]
        assert tokens == sorted(tokens), path
    assert guard.status()["internal_errors"]["count"] == 0


def test_nothing_else_died_and_nothing_else_was_told(story: Story) -> None:
    """Over the whole life of this gateway, turns that only prepared or followed a row included."""
    events = story.site.guard.settle()
    known = {future.result().transcript.name for futures in story.rows.values() for future in futures}
    assert len(deaths(lost(story.site.gateway))) == len(stories(events))
    assert {e["path"] for e in stories(events)} <= known
    assert {e["path"] for e in stories(events, op="forgotten")} <= known
    assert stories(events, op="stale") == []


def test_the_command_tells_the_same(story: Story) -> None:
    if "incidents" not in COMMANDS:
        pytest.skip("this guardfs has no `incidents` yet")
    words = [*GUARDFS, "incidents", "--audit", str(story.site.guard.audit), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode in (0, 1), done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(deaths(story.lost))
