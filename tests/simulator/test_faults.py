"""Every system call of the guard fails in its turn, while it stages, shows views, keeps its journal, rebases and
recovers: with ENOSPC, EIO and EROFS, once or for good, or cut short. Then the caller gets an error or success, nothing
that was acknowledged is lost or doubled, nothing is torn, and an owner sees no change that the guard has not told of.

Each story is played once to count its calls, and then once for each of them. In CI that is a part of them, always the
same; GUARDFS_FULL=1 plays all.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.simulator.faulty_world import Story, play
from tests.support.faults import BUG, ERRORS, SHORT, Fault, Faults
from tests.support.machine import FULL

EVERY = 1 if FULL else 32
"""In CI: every so manyth fault of a story."""

LATER = b"\0" * 12 + b"\1\2" * 20
"""The others come first once the turn has a fence open."""

STORIES = {
    "append": Story(("tool turn", "append")),
    "append and sync": Story(("tool turn", "synced")),
    "read and write one descriptor": Story(("tool turn", "held open")),
    "write at the end that was seen": Story(("tool turn", "held open, not to append")),
    "truncate": Story(("tool turn", "empty")),
    "rewrite": Story(("tool turn", "truncate and rewrite", "append")),
    "rewrite slowly": Story(("short turn", "append", "rewrite slowly")),
    "rename over": Story(("tool turn", "rename over", "append")),
    "rename away": Story(("tool turn", "rename away")),
    "unlink": Story(("tool turn", "unlink")),
    "chmod, utimes and chown": Story(("tool turn", "chmod", "utimes", "chown")),
    "link and attribute": Story(("tool turn", "link", "xattr")),
    "a note for an absent transcript": Story(("turn", "mirror"), b"\0" * 7, there=False),
    "create of an absent transcript": Story(("turn", "append"), b"\0" * 7, there=False),
    "/new": Story(("tool turn", "/new", "append")),
    "compaction by lines": Story(("tool turn", "append", "compact lines", "append")),
    "a second agent": Story(("tool turn", "local", "append")),
    "several branches": Story(("tool turn", "append", "held open", "synced")),
    "a writer that keeps to the lock": Story(("tool turn", "honest")),
    "an own write outside the lock": Story(("tool turn", "control", "append")),
    "recovery": Story(("tool turn", "append", "synced"), ending="dies"),
    "recovery of a rewrite": Story(("tool turn", "truncate and rewrite", "append"), LATER, ending="dies"),
    "recovery of a nameless file": Story(("tool turn", "unlink", "append"), ending="dies"),
    "flush": Story(("turn", "append"), ending="flush"),
    "mode off": Story(("turn", "append", "rename over"), LATER, ending="off"),
}  # fmt: skip


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    made = Faults()
    logging.disable(logging.CRITICAL)  # tracebacks of thousands of errors that were meant
    with made.installed():
        yield made
    logging.disable(logging.NOTSET)


def bugs(counts: dict[str, int]) -> Iterator[Fault]:
    """An error of the guard's own, before and after each of its methods acts, once and for good."""
    for point, times in sorted(counts.items()):
        # between the end of views.write and success there is nothing
        if not point.endswith((".before", ".after")) or point == "views.write.after":
            continue
        for nth in range(1, times + 1):
            yield Fault(point, nth, BUG)
            yield Fault(point, nth, BUG, lasting=True)


def errors(counts: dict[str, int]) -> Iterator[Fault]:
    """Every call, with each error, once and for good; reads and writes also cut short."""
    for call, times in sorted(counts.items()):
        for nth in range(1, times + 1):
            if call.endswith((".before", ".after")):
                break
            for number in ERRORS:
                yield Fault(call, nth, number)
                yield Fault(call, nth, number, lasting=True)
            if call.endswith((".pwrite", ".pread")):
                yield Fault(call, nth, SHORT)
    for disk in ("branches.*", "below.*"):  # all of the journal, or of the directory
        for nth in range(1, sum(times for call, times in counts.items() if call.startswith(disk[:-1])) + 1):
            yield Fault(disk, nth, errno.EIO, lasting=True)


@pytest.mark.parametrize("kind", [errors, bugs])
@pytest.mark.parametrize("name", STORIES)
def test_whatever_fails(
    faults: Faults, place: Path, name: str, kind: Callable[[dict[str, int]], Iterator[Fault]]
) -> None:
    story = STORIES[name]
    plain = play(story, place, faults, None)
    assert not plain.told() and not [each for each in plain.story if "is told" in each], (
        "it fails without a fault"
    )
    chosen = list(kind(dict(faults.counts)))[sum(map(ord, name)) % EVERY :: EVERY]
    hit = 0
    for fault in chosen:
        play(story, place, faults, fault)
        hit += faults.hits > 0
    assert hit > len(chosen) * 9 // 10, "the faults are not where they were counted"
