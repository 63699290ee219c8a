"""What the tests of the report share: collectors that were fed, and events by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from guardfs.audit.read import events
from guardfs.report.collect import Collector
from guardfs.report.model import model
from guardfs.report.page import Origin, page

TRANSCRIPT = "fb87a1b2-0000-4000-8000-000000000001.jsonl"
SESSION = "agent:main:main"
BEGIN = 1_779_507_467
"""2026-05-23T03:37:47Z, s since the epoch."""


def at(ms: float) -> str:
    """A time as events write it, so many ms after `BEGIN`."""
    micro = round(ms * 1000)
    second, rest = divmod(micro, 1_000_000)
    minute, second = divmod(47 + second, 60)
    hour, minute = divmod(37 + minute, 60)
    assert hour < 20
    return f"2026-05-23T{3 + hour:02d}:{minute:02d}:{second:02d}.{rest:06d}Z"


def operation(op: str = "write", ms: float = 0, lane: str = "gateway", **more: Any) -> dict[str, Any]:
    """An event of a transcript."""
    return {
        "v": 1, "seq": 1, "prev": "", "time": at(ms), "op": op, "path": TRANSCRIPT, "session": SESSION,
        "lane": lane, "rule": "everything else", "verdict": "allow", "errno": 0, "us": 10,
        "writer": {"tid": 7, "tgid": 7, "main": True, "comm": lane, "exe": "/bin/x", "uid": 0, "gid": 0, "start": 5},
        **more,
    }  # fmt: skip


def fed(found: Iterable[Mapping[str, Any]], **options: Any) -> Collector:
    collector = Collector(**options)
    for event in found:
        collector.feed(event)
    return collector


def read(path: str, **options: Any) -> Collector:
    """What a log says."""
    return fed((line.event for line in events(path) if line.event is not None), **options)


def drawn(collector: Collector) -> dict[str, Any]:
    return model(collector.pictures)


def html(collector: Collector, **more: Any) -> str:
    return page(collector, Origin(["audit.jsonl"], "0.0.0", "2026-05-23 04:00:00", **more)).decode()


def marks(shown: Mapping[str, Any], session: int = 0) -> list[dict[str, Any]]:
    """The marks of one session, with names for numbers."""
    one, strings = shown["sessions"][session], shown["strings"]
    found = []
    for time, lane, facts, size, record, count in zip(*[iter(one["marks"])] * 6, strict=True):
        op, path, writer, rule, verdict, would, fence, errno, to, quiet = shown["facts"][facts]
        found.append(
            {
                "time": time, "lane": one["lanes"][lane]["name"], "op": strings[op], "path": strings[path],
                "comm": strings[shown["writers"][writer][0]], "tgid": shown["writers"][writer][2],
                "rule": strings[rule], "verdict": strings[verdict], "would": strings[would],
                "fence": strings[fence], "errno": errno, "to": strings[to], "quiet": bool(quiet), "bytes": size,
                "record": one["records"][record - 1] if record else None, "count": count,
            }
        )  # fmt: skip
    return found
