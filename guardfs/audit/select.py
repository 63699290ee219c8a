"""Which events an operator wants to see. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import msgspec

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)(?:\s*ago)?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


class Filter(msgspec.Struct, frozen=True):
    """What must be true of an event; None or empty: no matter. lane, path, rule: globs, and a lane is also one within
    it; verdict: what was done, or what the rule would have done; process: a glob on the
    thread name or the executable (path or base name), or a process or thread id; session: its beginning, or a
    glob; since, until: as in events.
    """

    lane: str | None = None
    process: str | None = None
    session: str | None = None
    ops: frozenset[str] = frozenset()
    path: str | None = None
    verdict: str | None = None
    rule: str | None = None
    errors: bool = False
    since: str | None = None
    until: str | None = None

    def match(self, event: Mapping[str, Any]) -> bool:
        """Whether *event* is wanted. Events without the field that is asked for are not."""
        when = str(event.get("time", ""))
        return (
            (not self.ops or str(event.get("op")) in self.ops)
            and (self.since is None or when >= self.since)
            and (self.until is None or when <= self.until)
            and (not self.errors or bool(event.get("errno")) or event.get("op") in ("error", "gap", "torn"))
            and (self.verdict is None or self.verdict in (event.get("verdict"), event.get("would")))
            and (self.rule is None or fnmatchcase(str(event.get("rule", "\0")), self.rule))
            and (self.lane is None or _lane(event, self.lane))
            and (self.session is None or _session(event, self.session))
            and (self.path is None or _path(event, self.path))
            and (self.process is None or _process(event, self.process))
        )


def _lane(event: Mapping[str, Any], wanted: str) -> bool:
    lane = str(event.get("lane", "\0"))
    return fnmatchcase(lane, wanted) or lane.startswith(wanted + ":")


def _session(event: Mapping[str, Any], wanted: str) -> bool:
    session = event.get("session")
    wanted = wanted.removeprefix("session:")  # as the gateway's own log writes it
    return isinstance(session, str) and (session.startswith(wanted) or fnmatchcase(session, wanted))


def _path(event: Mapping[str, Any], wanted: str) -> bool:
    return any(
        isinstance(path, str) and (fnmatchcase(path, wanted) or fnmatchcase(path.rpartition("/")[2], wanted))
        for path in (event.get("path"), event.get("to"))
    )


def _process(event: Mapping[str, Any], wanted: str) -> bool:
    # the facts of a process stand in the event itself where it describes one
    writer = event.get("writer") if isinstance(event.get("writer"), dict) else event
    assert isinstance(writer, Mapping)
    if wanted.isdecimal():
        return int(wanted) in (writer.get("tgid"), writer.get("tid"))
    exe = writer.get("exe")
    names = [writer.get("comm"), exe, exe.rpartition("/")[2] if isinstance(exe, str) else None]
    return any(isinstance(name, str) and fnmatchcase(name, wanted) for name in names)


def moment(text: str, now: datetime) -> str:
    """*text* as events write a time (UTC). Understands ``10m`` (ago; s m h d w), ``14:30`` and ``14:30:05``
    (of today, in *now*'s zone), ISO 8601 dates and times (in *now*'s zone unless they name one). Raises
    ValueError."""
    text = text.strip()
    if ago := _AGO.fullmatch(text):
        try:
            found = now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        except OverflowError as error:
            raise ValueError(text) from error
    elif _CLOCK.fullmatch(text):
        clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M")
        found = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    else:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=now.tzinfo)
    try:
        offset = found.utcoffset() or timedelta()
        return (found.replace(tzinfo=None) - offset).isoformat(timespec="microseconds") + "Z"
    except OverflowError as error:
        raise ValueError(text) from error
