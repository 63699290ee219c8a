"""A real gateway on a guarded directory, enforcing: what kills its turns elsewhere is done to it, and no turn dies, no
record is lost, doubled or torn, and none is forgotten.

The same rows as in record mode. GUARDFS_ROW_RUNS plays each that often.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.conftest import Site, running
from tests.gateway.figures import figure
from tests.gateway.install import MEASURED, Install
from tests.gateway.outcome import Event, Lost, aborted, astray, deaths, lost, stale, stories, table, tallies
from tests.gateway.play import Played, play_all, runs
from tests.gateway.reach import History
from tests.gateway.rows import ROWS
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.gateway, pytest.mark.mount]

RUNS = runs(3)


@dataclass(frozen=True)
class Story:
    """All that happened in this module. lost: turns, in the gateway's words; events: the audit log."""

    site: Site
    rows: dict[str, list[Future[Played]]]
    lost: list[Lost]
    events: list[Event]


@pytest.fixture(scope="module")
def enforced(openclaw: Install, module_place: Path) -> Iterator[Site]:
    """One gateway under ``--policy openclaw --mode enforce``."""
    with running(openclaw, module_place, "--policy", "openclaw", "--mode", "enforce") as parts:
        yield Site(*parts)


@pytest.fixture(scope="module")
def story(enforced: Site, request: pytest.FixtureRequest) -> Story:
    """The rows that this run of the tests asks for, played."""
    wanted = {
        str(item.callspec.params.get("name"))
        for item in request.session.items
        if item.nodeid.startswith(request.node.nodeid) and hasattr(item, "callspec")
    }
    rows = [row for row in ROWS if row.name in wanted] or ROWS
    done = play_all(enforced.gateway, enforced.model, rows, RUNS)
    enforced.gateway.wait_quiet()
    wait_for(lambda: enforced.guard.status()["branches"]["open"] == 0, "branches to be rebased")
    events = enforced.guard.settle()
    story = Story(enforced, done, lost(enforced.gateway), events)
    figure(
        table(
            f"guarded, enforcing, OpenClaw {enforced.gateway.install.version}",
            tallies(done, story.lost, events),
        )
    )
    return story


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_no_turn_dies_and_no_record_is_lost(story: Story, name: str) -> None:
    faults = [fault for future in story.rows[name] for fault in _faults(story, future.result())]
    assert not faults, "\n".join(faults)


def _faults(story: Story, one: Played) -> list[str]:
    found = []
    unlucky = stale(story.lost, one.key)
    ended = not one.turn.ok and aborted(story.site.gateway, one.key)

    def expect(right: bool, what: str) -> None:
        if not right:
            found.append(f"{one.key}: {what}\n  turn {one.turn}")

    expect(not deaths(story.lost, one.transcript), "died")
    expect(one.turn.ok or bool(unlucky) or ended, "the turn failed")
    for what, turn in one.turns.items():
        expect(turn.ok or bool(unlucky), f"{what} failed: {turn}")
    if not unlucky:
        gone = [text for text in astray(one) if not (ended and text == '"reply:second"')]
        expect(gone == [], f"not remembered, or twice: {gone}")
    for path in one.transcript.parent.glob(f"{one.transcript.name}*"):
        if path.suffix == ".lock" or ".trajectory" in path.name or ".checkpoint" in path.name:
            continue
        history = History.of(path)
        expect(history.unparsable == 0, f"{path.name}: {history.unparsable} lines are no records")
        expect(history.headers <= 1, f"{path.name}: {history.headers} headers")
        expect(history.duplicates() == [], f"{path.name}: twice: {history.duplicates()}")
        expect(".conflict." not in path.name, f"{path.name}: a conflict")
    return found


def test_what_was_saved_is_told(story: Story) -> None:
    """Each turn that would have died is an incident with the outcome `saved`; none was lost."""
    assert [event for event in stories(story.events) if event["outcome"] == "lost"] == []
    saved = {event["path"] for event in stories(story.events) if event["outcome"] == "saved"}
    doomed = {
        future.result().transcript.name
        for futures in story.rows.values()
        for future in futures
        if future.result().row.dies
    }
    if story.site.gateway.install.version == MEASURED:  # others die of fewer things
        assert doomed <= saved


def test_nothing_is_left_behind(story: Story) -> None:
    guard = story.site.guard
    wait_for(lambda: guard.status()["fences"]["open"] == 0, "fences to close")
    status = guard.status()
    assert status["internal_errors"]["count"] == 0
    branches = status["branches"]
    assert (branches["open"], branches["failed"], branches["conflicts"], branches["passed"]) == (0, 0, 0, 0)
    assert list((guard.state / "branches").iterdir()) == []
    assert [path.name for path in guard.directory.iterdir() if path.name.startswith(".guardfs")] == []
