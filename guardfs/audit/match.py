"""Which incident of a log a gateway's error line is about, and what the log knows where there is none. Pure.

A line is written after the check that failed, and its turn began before: so the incident lies within the time that the
turn took. Where the line names no transcript, its session decides; where it has no time, the latest incident does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec

from guardfs.audit.incidents import Gatherer, Incident, Who
from guardfs.audit.levels import CHANGES
from guardfs.audit.logline import Complaint

KEPT = 1000
"""Incidents kept for one line, the latest; a transcript has some."""

NOTED = 20
"""Other things kept for one line: closed fences, changes, what became of lock files."""

_TRANSCRIPTS = 4096
"""For which it is remembered which lines can be about them."""

SLACK = timedelta(milliseconds=250)
"""Between two clocks of one machine, both rounded."""

_CUT = ((".000000Z", timedelta(seconds=1)), ("000Z", timedelta(milliseconds=1)))
"""By how much a line may be later than it says, where its time was cut to the second, or as JavaScript does it."""

UNKNOWN_TURN = timedelta(minutes=15)
"""How long a turn may have run where the line does not say."""

_DAY = timedelta(days=1)
_ZONE = timedelta(minutes=30)
_FARTHEST_ZONE = timedelta(hours=14)

_AFTERWARDS = timedelta(minutes=1)
"""How late a line may be that does not fit at once; mostly it is milliseconds."""

How = Literal["time", "latest", "day", "zone"]
"""Why it is this incident: the time fits; the line has none, and it is the latest one; the time of day fits, and the
line does not say of which day; the time fits if the line's clock is of another time zone."""


_ORDER: tuple[How, ...] = ("time", "day", "latest", "zone")
"""The surest first."""


class Death(NamedTuple):
    """An incident and the processes in it, as the log knew them then. seq: of the culprit's event, 0 if unknown. did:
    what the culprit did."""

    incident: Incident
    event: Mapping[str, Any]
    owner: Who
    culprit: Who | None
    seq: int
    did: str


def death_of(incident: Incident, event: Mapping[str, Any], known: Gatherer) -> Death:
    """*incident*, told by *event*, with what *known* knows of its processes."""
    change = incident.culprit
    return Death(
        incident,
        event,
        known.owner(incident),
        known.culprit(incident),
        known.seq(change) if change is not None else 0,
        known.did(change) if change is not None else incident.difference(),
    )


class Found(NamedTuple):
    """shift: hours by which the line's clock differs, of `zone`. rivals: other incidents that the line could be about,
    of `latest`."""

    death: Death
    how: How
    shift: float = 0
    rivals: int = 0


class Remark(msgspec.Struct, frozen=True):
    """Something that the log tells of the time of a line. who: of an operation."""

    event: Mapping[str, Any]
    who: Who | None = None


class Search:
    """Takes the events of one log in order, then answers for each of *lines*. Bounded.

    first, last: times of the log's first and last event. transcripts: those that the lines name and the log knows.
    """

    def __init__(self, lines: Sequence[Complaint]) -> None:
        self._lines = lines
        self._known = Gatherer()
        self._deaths: list[deque[Death]] = [deque(maxlen=KEPT) for _ in lines]
        self._remarks: list[deque[Remark]] = [deque(maxlen=NOTED) for _ in lines]
        self._spans = [_span(line) for line in lines]
        self._places: dict[tuple[str | None, str | None], tuple[int, ...]] = {}
        self.first = self.last = ""
        self.seen = [False] * len(lines)
        """Of each line: whether the log knows its transcript."""
        self.incidents = 0

    def take(self, event: Mapping[str, Any]) -> None:
        """The next event."""
        time = event.get("time")
        if isinstance(time, str):
            self.first = min(self.first or time, time)
            self.last = max(self.last, time)
        told = self._known.take(event)
        if told is not None:
            if isinstance(told, Incident):
                self.incidents += 1
                self._incident(told, event)
            return
        if "session" in event:
            for place in self._about(event.get("path"), event.get("session")):
                self.seen[place] = True
                self._note(place, event)

    def found(self, place: int) -> Found | None:
        """The incident behind line *place*."""
        deaths, line = self._deaths[place], self._lines[place]
        if not deaths or line.kind != "changed":
            return None
        span = self._spans[place]
        if span is None:
            return Found(deaths[-1], "latest", rivals=len(deaths) - 1)
        fitting = [death for death in deaths if span.holds(death.incident.time)]
        if fitting:
            before = [death for death in fitting if _at(death.incident.time) <= span.line]
            return Found(before[-1] if before else fitting[0], "time")
        if line.file is None and line.session is None:
            return None
        return self._in_another_zone(line, span, deaths)

    def covers(self, place: int) -> bool:
        """Whether the log reaches over some of the time of line *place*."""
        span = self._spans[place]
        return span is None or (_at(self.first) <= span.end and span.begin <= _at(self.last))

    def closest(self, place: int) -> Death | None:
        """The incident of the same transcript that is nearest in time, though it does not fit."""
        span, deaths = self._spans[place], self._deaths[place]
        if span is None or not deaths:
            return None
        return min(deaths, key=lambda death: abs(_at(death.incident.time) - span.line))

    def remarks(self, place: int) -> list[Remark]:
        """What else happened to the transcript in the time of line *place*."""
        return list(self._remarks[place])

    def who(self, tgid: int) -> Who | None:
        """The process with this id, if the log knows one; the latest."""
        return self._known.process(tgid)

    def _incident(self, incident: Incident, event: Mapping[str, Any]) -> None:
        death: Death | None = None
        for place in self._about(incident.path, incident.session):
            self.seen[place] = True
            death = death or death_of(incident, event, self._known)
            self._deaths[place].append(death)

    def _about(self, path: object, session: object) -> tuple[int, ...]:
        """The lines that can be about a transcript."""
        path = path if isinstance(path, str) else None
        session = session if isinstance(session, str) else None
        key = (path, session)
        places = self._places.get(key)
        if places is None:
            if len(self._places) >= _TRANSCRIPTS:
                self._places.clear()
            found = (place for place, line in enumerate(self._lines) if about(line, path, session))
            places = self._places[key] = tuple(found)
        return places

    def _note(self, place: int, event: Mapping[str, Any]) -> None:
        span, op = self._spans[place], event.get("op")
        if span is None or not span.holds(str(event.get("time", ""))):
            return
        writer = event.get("writer")
        if isinstance(writer, dict):
            changes = isinstance(op, str) and op in CHANGES and not event.get("errno")
            if changes and not str(event.get("path", "")).endswith(".lock"):
                self._remarks[place].append(Remark(event, self._known.of_writer(event, writer)))
        elif op == "lock" or op == "unseen" or (op == "fence" and event.get("change") == "closed"):
            self._remarks[place].append(Remark(event))

    @staticmethod
    def _in_another_zone(line: Complaint, span: Span, deaths: Sequence[Death]) -> Found | None:
        """The latest of *deaths* that fits if the line's clock is off by some half hours, or its day by some days."""
        most = min(span.line - span.begin, _AFTERWARDS)
        for death in reversed(deaths):
            away = span.line - _at(death.incident.time)
            if not line.day:  # the time of a day, and nobody knows which
                away = (away + _DAY / 2) % _DAY - _DAY / 2
            shift = round(away / _ZONE) * _ZONE
            if abs(shift) <= _FARTHEST_ZONE and -SLACK <= away - shift <= most:
                return Found(death, "zone" if shift else "day", shift / timedelta(hours=1))
        return None


def best(searches: Sequence[Search], place: int) -> int:
    """Of the searches in several logs, the number of the one that knows most of line *place*."""
    ranks: list[tuple[int, bool]] = []
    for search in searches:
        found = search.found(place)
        ranks.append((len(_ORDER) if found is None else _ORDER.index(found.how), not search.seen[place]))
    return ranks.index(min(ranks))


class Span(NamedTuple):
    """A time in which an incident must lie. line: when its line can have been written at the latest."""

    begin: datetime
    line: datetime
    end: datetime

    def holds(self, time: str) -> bool:
        """Whether an event's time lies in it."""
        return self.begin <= _at(time) <= self.end


def about(line: Complaint, path: object, session: object) -> bool:
    """Whether *line* can be about the transcript at *path*, of *session*: names count for more than keys."""
    if line.file is not None and isinstance(path, str):
        name = path.rpartition("/")[2].removesuffix(".lock")
        shortened = line.file.replace("…", "...")
        if "..." not in shortened:
            return name == line.file
        before, _, after = shortened.partition("...")
        return bool(before) and name.startswith(before) and name.endswith(after)
    if line.session is not None:
        return session == line.session
    return line.file is None


def _span(line: Complaint) -> Span | None:
    if line.time is None:
        return None
    at = _at(line.time)
    turn = UNKNOWN_TURN if line.duration_ms is None else timedelta(milliseconds=line.duration_ms)
    latest = at + next((rest for cut, rest in _CUT if line.time.endswith(cut)), timedelta())
    return Span(at - turn - SLACK, latest, latest + SLACK)


def _at(time: str) -> datetime:
    try:
        return datetime.fromisoformat(time)
    except ValueError:
        return _NEVER


_NEVER = datetime.fromisoformat("0001-01-02T00:00:00+00:00")
