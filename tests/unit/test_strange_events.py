"""A log may hold anything, wherever it comes from: whatever stands in a field, those who read logs go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from guardfs.audit.blame import Ledger
from guardfs.audit.incidents import Gatherer, Incident, joined
from guardfs.audit.logline import Complaint
from guardfs.audit.match import Search
from guardfs.audit.select import Filter
from tests.unit.fenced_log import CRON, NAME, RUN, FencedLog, record

Event = dict[str, Any]
STRANGE: tuple[object, ...] = ([], ["x"], {"a": []}, None, "x", -1, 1 << 63)
"""Instead of what a guard writes. The last: more than a signed integer of 64 bits holds."""


def gathered(events: list[Event]) -> None:
    known = Gatherer()
    for event in events:
        told = known.take(event)
        if told is not None:
            joined(told, known, event)
        if isinstance(told, Incident) and told.culprit is not None:
            known.did(told.culprit)


def matched(events: list[Event]) -> None:
    search = Search([Complaint("changed", NAME, time="2026-05-23T03:37:47.100000Z", duration_ms=200)])
    for event in events:
        search.take(event)
    search.found(0), search.closest(0), search.remarks(0)


def blamed(events: list[Event]) -> None:
    ledger = Ledger(NAME)
    for event in events:
        ledger.take(event)
    ledger.history()


def selected(events: list[Event]) -> None:
    wanted = Filter(ops=frozenset({"write"}), session="agent:", errors=False)
    for event in events:
        wanted.match(event)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """A turn that died, whose transcript is then cut and renamed."""
    with FencedLog(tmp_path_factory.mktemp("log")) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        log.turn()
        log.append(CRON, record("bf09c3d4", log.leaf))
        log.check()
        log.truncate(CRON, 20)
        log.rename(CRON, f"{NAME}.reset.1")
    return log.events()


def fields(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in *value*."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list):
        inner = range(len(value))
    for key in inner:
        yield (*before, key)
        yield from fields(value[key], (*before, key))


def changed(value: Any, way: tuple[Any, ...], strange: object) -> Any:
    """A copy of *value* in which *strange* stands there."""
    if not way:
        return strange
    copy = dict(value) if isinstance(value, Mapping) else list(value)
    copy[way[0]] = changed(copy[way[0]], way[1:], strange)
    return copy


@pytest.mark.parametrize("read", [gathered, matched, blamed, selected])
def test_whatever_stands_in_a_field_is_read(read: Callable[[list[Event]], None], events: list[Event]) -> None:
    assert {"incident", "fence", "process", "truncate", "rename"} <= {event["op"] for event in events}
    for place, event in enumerate(events):
        for way in fields(event):
            for strange in STRANGE:
                odd = [*events[:place], changed(event, way, strange), *events[place + 1 :]]
                try:
                    read(odd)
                except Exception as error:
                    raise AssertionError(f"{event['op']}: {way} is {strange!r}") from error
