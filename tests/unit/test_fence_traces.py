"""The fence machine on the recorded traces of a real gateway.

The expected numbers were not made by running the machine. They were read in the traces, line by line, in a listing
of the lock file's creations and removals and of what was done to the transcript in between:

    jq -c 'select(.path | test("[.]jsonl")) | select(.path | test("trajectory") | not)
           | select(.op != "close" and .op != "read")
           | [input_line_number, .t, .thread, .op, .path[0:8], .flags, .size, .error, (.head // "")[0:60]]' FILE

A cycle runs from an open with `creat` of `.lock` to its unlink. With "look" for a stat by a pool thread, the cycles
are: the opening of a fence (an open to read, or a look at nothing; main thread reads and appends; a look; release),
one that goes on (a look, perhaps main thread appends, a look), the last (one look), and others (mirror and inject:
look, look, open to read, a pool thread's append; readers: an open to read only; compaction: a main thread's append
after the last look). The lines named below are those of the cycle's `unlink`.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from guardfs.fence.effects import (
    Effect,
    FenceChecked,
    FenceClosed,
    FenceOpened,
    FenceRefreshed,
    Forgotten,
    Incident,
    LockLost,
    Stale,
)
from guardfs.fence.events import Kind
from guardfs.fence.machine import Machine
from tests.support.fence_traces import TRACES, TraceEvents, load


class Expected(NamedTuple):
    """One fence: session, token, lines where it opens and closes, checks (the last one included)."""

    session: str
    token: int
    opens: int
    closes: int
    checks: int


class Run(NamedTuple):
    told: list[tuple[int, Effect]]
    machine: Machine
    cycles: int


FENCES = {
    "two-turns": [
        # 24 cycles; the other two (release at 560, 1079) only read after a turn
        Expected("379c09ab", 1, 219, 503, 10),
        Expected("379c09ab", 2, 754, 1022, 10),
    ],
    "inject-compact-new-reset-delete": [
        # 35 cycles; the others: inject (37, 1172), readers (764, 1806), the model's compaction (956)
        Expected("13216a23", 1, 348, 709, 14),
        Expected("b41c8ff0", 1, 1406, 1751, 14),
    ],
    "tool-inject-absent-new": [
        # 63 cycles; the others: inject while a reply streams (792), inject (1209, 2322)
        Expected("187dd544", 1, 302, 1509, 28),
        Expected("3fc99e84", 1, 1426, 2530, 14),
        Expected("187dd544", 2, 2198, 2935, 15),
    ],
}
CYCLES = {"two-turns": 24, "inject-compact-new-reset-delete": 35, "tool-inject-absent-new": 63}


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {name: _run(name) for name in FENCES}


def _run(name: str) -> Run:
    machine = Machine()
    told: list[tuple[int, Effect]] = []
    cycles = 0
    for number, event in TraceEvents().convert(load(TRACES / f"{name}.jsonl")):
        cycles += event.kind is Kind.LOCK_REMOVED
        told += [(number, effect) for effect in machine.apply(event).effects]
    return Run(told, machine, cycles)


@pytest.mark.parametrize("name", FENCES)
def test_every_lock_cycle_of_the_trace_is_seen(name: str, runs: dict[str, Run]) -> None:
    assert runs[name].cycles == CYCLES[name]


@pytest.mark.parametrize("name", FENCES)
def test_every_fence_of_the_owner_is_found_and_no_other(name: str, runs: dict[str, Run]) -> None:
    opened: dict[tuple[str, int], int] = {}
    checks: Counter[tuple[str, int]] = Counter()
    found = []
    for number, effect in runs[name].told:
        if isinstance(effect, LockLost):
            continue
        key = (
            (effect.fence.transcript.decode()[:8], effect.fence.token)
            if hasattr(effect, "fence")
            else ("", 0)
        )
        if isinstance(effect, FenceOpened):
            opened[key] = number
        elif isinstance(effect, FenceChecked):
            checks[key] += 1
        elif isinstance(effect, FenceClosed):
            assert effect.reason == "closed"
            found.append(Expected(*key, opened.pop(key), number, checks[key]))
    assert sorted(found) == sorted(FENCES[name])
    assert not opened


@pytest.mark.parametrize("name", FENCES)
def test_each_check_but_the_last_is_a_refresh(name: str, runs: dict[str, Run]) -> None:
    refreshes = Counter(
        effect.fence.token for _, effect in runs[name].told if isinstance(effect, FenceRefreshed)
    )
    expected: Counter[int] = Counter()
    for fence in FENCES[name]:
        expected[fence.token] += fence.checks - 1
    assert refreshes == expected


@pytest.mark.parametrize("name", FENCES)
def test_no_turn_died_so_there_is_no_incident(name: str, runs: dict[str, Run]) -> None:
    assert [effect for _, effect in runs[name].told if isinstance(effect, Incident | LockLost | Stale)] == []


@pytest.mark.parametrize("name", FENCES)
def test_nothing_is_kept_when_the_gateway_is_idle(name: str, runs: dict[str, Run]) -> None:
    assert runs[name].machine.places == 0
    assert runs[name].machine.processes() == frozenset()


def test_an_injected_reply_is_accepted_and_forgotten(runs: dict[str, Run]) -> None:
    """Line 782 injects a record of the role assistant; the cycle at 815 reads it (819) and goes on; the next record
    of the run (line 1263) names the one before the injected as its parent."""
    told = runs["tool-inject-absent-new"].told
    accepted = [
        effect for number, effect in told if isinstance(effect, FenceChecked) and effect.outcome != "same"
    ]
    assert [(effect.outcome, effect.changes) for effect in accepted] == [("accepted", 1)]
    [forgotten] = [(number, effect) for number, effect in told if isinstance(effect, Forgotten)]
    assert forgotten[0] == 831
    [change] = forgotten[1].changes
    assert change.records[0].id == "3bfb8d1b-033f-4636-984a-d902de36c943"
    assert change.actor is not None and not change.actor.main and change.locked
