"""Plays rows (`tests.gateway.rows`) on a gateway, guarded or not.

    for row, played in play_all(gateway, model, ROWS, 3).items(): ...

What came of it is for `tests.gateway.outcome` to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.gateway import Gateway, Turn
from tests.gateway.model import ModelServer
from tests.gateway.rows import PIECES, Culprit, Row, Scene

AT_ONCE = 3
"""The gateway runs four turns at a time; one is left for what the rows do besides."""

PATIENCE_SECONDS = 15.0
"""How long a change may take before the reply goes on, where the gateway keeps its lock while the model answers."""


@dataclass(frozen=True)
class Played:
    """One turn of a row. began: wall clock, s, of the request. said: texts each of which must be in one record. stale:
    what the gateway refused meanwhile because of a stale lock file."""

    row: Row
    key: str
    transcript: Path
    turn: Turn
    turns: dict[str, Turn]
    culprit: Culprit
    began: float
    said: tuple[str, ...]
    stale: int


def runs(default: int) -> int:
    """How often each row is played: GUARDFS_ROW_RUNS, or 20 with GUARDFS_FULL, or *default*."""
    return int(os.environ.get("GUARDFS_ROW_RUNS") or (20 if os.environ.get("GUARDFS_FULL") else default))


def play_all(
    gateway: Gateway, model: ModelServer, rows: Sequence[Row], times: int
) -> dict[str, list[Future[Played]]]:
    """Each of *rows* that many *times*, some at a time; all are over when it returns. By the rows' names."""
    done: dict[str, list[Future[Played]]] = {row.name: [] for row in rows}
    for alone in (False, True):
        with ThreadPoolExecutor(1 if alone else AT_ONCE) as pool:
            for row in rows:
                if row.alone is alone:
                    keys = [_key(row, number) for number in range(times)]
                    done[row.name] = [pool.submit(play, gateway, model, row, key) for key in keys]
    return done


def _key(row: Row, number: int) -> str:
    name = row.name.replace(", ", "-").replace(" ", "-").replace("_", "-")
    return f"agent:main:{name}-{number}"


def play(gateway: Gateway, model: ModelServer, row: Row, key: str) -> Played:
    """A first turn, unless the row wants none; then a second one, and the change while its reply is held or streams."""
    said = []
    word = key.rpartition(":")[2]
    if not row.fresh:
        first = gateway.turn(key, f"first-{word}. [say=first]")
        assert first.ok, f"{first}\n{gateway.log_tail()}"
        said += [f"first-{word}.", '"reply:first"']
        gateway.wait_released(key)
    began = time.time()
    said += [f"second-{word}.", '"reply:second"']
    message = f"second-{word}. [say=second] [chunks={PIECES}]"
    if row.within is not None:
        scene = _scene(gateway, model, key, "", said)
        more, who = row.within(scene)
        turn = gateway.turn(key, f"{message} {more}")
        return _played(row, scene, turn, who(), began)
    assert row.do is not None
    message += " [seconds=1]" if row.hold is None else f" [seconds=0.5] [hold={row.hold}]"
    under_way = gateway.turn_async(key, message)
    released = True
    try:
        if row.hold is None:
            model.wait_streaming(f"second-{word}.")
        else:
            model.wait_held(f"second-{word}.")
            released = gateway.wait_released(key)
        scene = _scene(gateway, model, key, f"second-{word}.", said)
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(row.do, scene)
            if not released:  # what waits for the lock file waits for the end of this very reply
                wait([doing], PATIENCE_SECONDS)
                model.release(f"second-{word}.")
            culprit = doing.result()
    finally:
        model.release(f"second-{word}.")
    return _played(row, scene, under_way.result(), culprit, began)


def _scene(gateway: Gateway, model: ModelServer, key: str, word: str, said: list[str]) -> Scene:
    transcript = gateway.session_file(key)
    assert transcript is not None, "the registry names the transcript before it is made"
    return Scene(gateway, model, key, word, transcript, said=said)


def _played(row: Row, scene: Scene, turn: Turn, culprit: Culprit, began: float) -> Played:
    if culprit.record is not None:
        scene.said.append(f'"id": "{culprit.record}"')
    return Played(
        row, scene.key, scene.transcript, turn, scene.turns, culprit, began, tuple(scene.said), scene.stale
    )
