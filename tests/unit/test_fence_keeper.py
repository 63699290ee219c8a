"""What keeps fences in a running guard goes on, whatever becomes of those whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from guardfs.audit.event import Notice
from guardfs.fence.effects import Effect, FenceClosed, FenceFacts
from guardfs.mount.fences import FenceKeeper
from guardfs.policy.decide import Decider
from guardfs.policy.judge import Judge
from guardfs.policy.load import load
from guardfs.state.directory import StateDirectory
from guardfs.state.tokens import TokenStore
from guardfs.transcript.names import NameRules
from tests.support.direct import Recorder

CLOSED = tuple(
    FenceClosed(FenceFacts(name, 1, "gateway", (1, 1), 0), "exit", 0, 0) for name in (b"a.jsonl", b"b.jsonl")
)


class Broken:
    """Raises, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, *_: object) -> NoReturn:
        self.asked += 1
        raise RuntimeError("injected")


@pytest.fixture
def log() -> Recorder:
    return Recorder()


@pytest.fixture
def keeper(tmp_path: Path, log: Recorder) -> FenceKeeper:
    policy = load("record").policy
    judge = Judge(Decider(policy, lambda kind, name: None), NameRules(policy.transcripts))
    made = FenceKeeper(judge, log, TokenStore(StateDirectory(str(tmp_path))))  # type: ignore[arg-type]
    made.wrong = []  # type: ignore[attr-defined]
    made.went_wrong = made.wrong.append  # type: ignore[attr-defined]
    return made


def ends(keeper: FenceKeeper, effects: tuple[Effect, ...]) -> Callable[..., tuple[Effect, ...]]:
    return lambda *_: effects


def test_an_event_that_cannot_be_written_keeps_nothing_from_the_views(
    keeper: FenceKeeper, log: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Effect, ...]] = []
    broken = Broken()
    monkeypatch.setattr(log, "emit", broken)
    monkeypatch.setattr(keeper._judge, "exited", ends(keeper, CLOSED))
    keeper.ended = told.append
    keeper._exited((1, 1))
    assert told == [CLOSED] and broken.asked == 2
    assert keeper.wrong == ["telling of a fence"] * 2  # type: ignore[attr-defined]


async def test_the_clock_goes_on_whatever_fails(
    keeper: FenceKeeper,
    log: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    monkeypatch.setattr(keeper._judge, "tick", ends(keeper, CLOSED))
    keeper.ended, keeper.ticked = Broken(), Broken()
    async with trio.open_nursery() as nursery:
        keeper.start(nursery)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert keeper.ended.asked == keeper.ticked.asked > 3
    assert len([each for each in log.items if isinstance(each, Notice)]) == 2 * keeper.ended.asked
    monkeypatch.setattr(keeper._judge, "tick", Broken())
    before = keeper.ticked.asked
    async with trio.open_nursery() as nursery:
        keeper.start(nursery)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert keeper.ticked.asked > before + 3
