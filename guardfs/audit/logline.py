"""What a gateway's own log says of a turn that was lost: its error lines, as somebody pastes them. Pure.

Seen in the field: ``TIME [diagnostic] lane task error: lane=L durationMs=N error="..."``, the time in ISO 8601, of the
day only, or behind that of journald; the same inside a line of JSON; twice for one turn, which runs in the lane
``main`` and in that of its session; broken into several lines by whoever copied it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec

Kind = Literal["changed", "stale", "locked", "other"]
"""``changed``: the transcript was not as the turn had left it. ``stale``, ``locked``: the lock file was in the way.
``other``: an error that has to do with neither."""

MAX_PASTE = 64 << 20
"""Characters that are looked at: a whole log of a gateway is welcome, too."""

_SAME_TURN = timedelta(seconds=5)
"""Between the lines that one turn leaves behind: milliseconds, and up to seconds where models are tried in turn."""

_BETWEEN = 8
"""Turns whose lines may stand between two lines of one."""

_WORDS: dict[Kind, str] = {
    "changed": "session file changed while embedded prompt lock was released",
    "stale": "file lock stale for",
    "locked": "session file locked",
}
_ANCHORS = [(kind, re.compile(words.replace(" ", r"\s+"))) for kind, words in _WORDS.items()]
_AFTER = re.compile(r':?\s*([^"\n]{0,1500})')
"""What follows the words, up to where the error ends: a path, among other things. Longer ones are not seen in the
field."""

_PID = re.compile(r"\bpid=(\d{1,9})\b")
_LANE_ERROR = re.compile(r'lane\s+task\s+error:[^\n]*?(?:\s+error="?(?P<error>[^"\n]*)|(?=\n|$))')
_LANE = re.compile(r"\blane=(\S+)")
_DURATION = re.compile(r"\bdurationMs=(\d{1,12})")
_KEY = re.compile(r'\b(?:sessionKey=|session[:=])"?((?:agent|cron|hook|acp):[^\s",;]+)')
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?")
_SYSLOG = re.compile(r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}(\d{1,2}) (\d\d:\d\d:\d\d)\b")
_CLOCK = re.compile(r"(?<![\d:T.+-])(\d{1,2}:\d\d:\d\d)(?:[.,]\d+)?(?![\d:])")


class Complaint(msgspec.Struct, frozen=True):
    """One lost turn, as the gateway tells it. file: base name of the transcript; it may be shortened with ``...``.
    session: its key. time: UTC, as events have it; None: the lines have none. day: whether they said which day.
    duration_ms: how long the turn had run. lanes: the gateway's. pid: the holder of the lock. error: its words, of
    `other`. lines: how many lines tell of it.
    """

    kind: Kind
    file: str | None = None
    session: str | None = None
    time: str | None = None
    day: bool = True
    duration_ms: int | None = None
    lanes: tuple[str, ...] = ()
    pid: int | None = None
    error: str = ""
    lines: int = 1


class _Moment(NamedTuple):
    at: datetime
    day: bool


def complaints(text: str, now: datetime) -> list[Complaint]:
    """What *text* complains of, in its order; several lines about one turn are one. *now*: with a zone, which is that
    of times without one."""
    plain = "\n".join(map(_message, _ANSI.sub("", text[:MAX_PASTE]).splitlines()))
    found: list[Complaint] = []
    for complaint in _each(plain, now):
        for place in range(len(found) - 1, max(-1, len(found) - 1 - _BETWEEN), -1):
            merged = _merged(found[place], complaint)
            if merged is not None:
                found[place] = merged
                break
        else:
            found.append(complaint)
    return found


def _each(text: str, now: datetime) -> Iterator[Complaint]:
    anchors = sorted(
        ((match, kind) for kind, words in _ANCHORS for match in words.finditer(text)),
        key=lambda each: each[0].start(),
    )
    begin = 0
    for match, kind in anchors:
        context = text[begin : match.start()]
        yield from _others(context, now, before_anchor=True)
        lane_error = context.rfind("lane task error:")
        own = context if lane_error < 0 else context[_line_of(context, lane_error) :]
        own = own if lane_error >= 0 else own[own.rfind("\n") + 1 :]
        after = _AFTER.match(text, match.end())
        yield _complaint(kind, own, now, after[1] if after else "")
        begin = match.end()
    yield from _others(text[begin:], now, before_anchor=False)


def _others(text: str, now: datetime, *, before_anchor: bool) -> Iterator[Complaint]:
    """Errors of lanes that are about something else; the last one in *text* belongs to the anchor after it, if there
    is one."""
    matches = list(_LANE_ERROR.finditer(text))
    for match in matches[: len(matches) - before_anchor]:
        context = text[_line_of(text, match.start()) : match.end()]
        found = _complaint("other", context, now, "")
        yield msgspec.structs.replace(found, error=(match["error"] or "").strip())


def _line_of(text: str, position: int) -> int:
    return text.rfind("\n", 0, position) + 1


def _complaint(kind: Kind, context: str, now: datetime, after: str) -> Complaint:
    """context: what stands before the words, in the same line or lines; after: what follows them."""
    lanes = _LANE.findall(context)
    lane = lanes[-1].strip('",') if lanes else None
    durations = _DURATION.findall(context)
    keys = _KEY.findall(context)
    moment = _moment(context, now)
    pid = _PID.search(after) if kind == "locked" else None
    session = lane.removeprefix("session:") if lane and lane.startswith("session:") else None
    return Complaint(
        kind,
        _file(after),
        session or (keys[-1] if keys else None),
        None if moment is None else _stamp(moment.at),
        moment is None or moment.day,
        int(durations[-1]) if durations else None,
        (lane,) if lane else (),
        int(pid[1]) if pid else None,
    )


def _file(after: str) -> str | None:
    """The base name of the first transcript in *after*; None for none, and for what somebody has blotted out."""
    end = after.find(".jsonl")
    if end < 0:
        return None
    name = re.split(r"[/\\]|\s(?=\S+$)", after[: end + len(".jsonl")])[-1].strip()
    return None if "<" in name or "*" in name or len(name) <= len(".jsonl") else name


def _message(line: str) -> str:
    """A line of JSON as the line that it stands for; any other as it is."""
    if not line.lstrip().startswith("{"):
        return line
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(found, dict):
        return line
    message = next(
        (found[key] for key in ("message", "msg", "1", "0") if isinstance(found.get(key), str)), None
    )
    if message is None:
        return line
    meta = found.get("_meta")
    when = (
        found.get("time") or found.get("timestamp") or (meta.get("date") if isinstance(meta, dict) else None)
    )
    return " ".join(f"{when if isinstance(when, str) else ''} {message}".split("\n"))


# ---- times


def _moment(context: str, now: datetime) -> _Moment | None:
    """The last time in *context*, the fullest kind first."""
    for match in reversed(list(_ISO.finditer(context))):
        try:
            at = datetime.fromisoformat(match[0].replace(",", "."))
            return _Moment(at if at.tzinfo is not None else at.replace(tzinfo=now.tzinfo), True)
        except ValueError:
            continue
    for match in reversed(list(_SYSLOG.finditer(context))):
        try:
            at = datetime.strptime(f"{now.year} {match[1]} {match[2]} {match[3]}", "%Y %b %d %H:%M:%S")
        except ValueError:
            continue
        at = at.replace(tzinfo=now.tzinfo)
        if at > now + timedelta(days=1):  # the log of last December, read in January
            at = at.replace(year=at.year - 1)
        return _Moment(at, True)
    for match in reversed(list(_CLOCK.finditer(context))):
        try:
            clock = datetime.strptime(match[1], "%H:%M:%S").time()
        except ValueError:
            continue
        at = datetime.combine(now.date(), clock, now.tzinfo)
        return _Moment(at - timedelta(days=1) if at > now + timedelta(minutes=5) else at, False)
    return None


def _stamp(at: datetime) -> str:
    try:
        return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    except OverflowError:
        return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# ---- several lines about one turn


def _merged(first: Complaint, second: Complaint) -> Complaint | None:
    """Both as one; None if they are about different turns."""
    if first.kind != second.kind or first.kind == "other":
        return None
    if set(first.lanes) & set(second.lanes):  # each lane tells of a turn once
        return None
    if first.file and second.file and first.file != second.file:
        return None
    if first.session and second.session and first.session != second.session:
        return None
    if first.time and second.time:
        apart = datetime.fromisoformat(second.time) - datetime.fromisoformat(first.time)
        if not -_SAME_TURN <= apart <= _SAME_TURN:
            return None
    durations = [each for each in (first.duration_ms, second.duration_ms) if each is not None]
    return Complaint(
        first.kind,
        first.file or second.file,
        first.session or second.session,
        first.time or second.time,
        first.day if first.time else second.day,
        max(durations) if durations else None,
        tuple(dict.fromkeys(first.lanes + second.lanes)),
        first.pid or second.pid,
        lines=first.lines + second.lines,
    )
