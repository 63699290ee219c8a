"""Takes in logs, event by event, with bounded memory, and knows at their end what the page is to say. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from guardfs.audit.incidents import Forgotten, Gatherer, Incident, Who, culprit_lane
from guardfs.audit.select import Filter
from guardfs.report import draw
from guardfs.report.counts import Counts
from guardfs.report.pictures import Picture, Pictures
from guardfs.report.story import done
from guardfs.report.values import mapping, micros, number, text, transcript_of

MAX_TOLD = 300
"""Incidents told one by one, the last ones; all are counted, and drawn."""

MAX_CULPRITS = 1000
MAX_SESSIONS = 16_384
MAX_POLICIES = 20


class Told(NamedTuple):
    """An incident, and who they were as far as the log knew when it came. culprit: None if nobody was seen. did: what
    the culprit did, with its record; seq: that event's number, 0 if unknown. log: number of the log."""

    number: int
    log: int
    incident: Incident
    owner: Who
    culprit: Who | None
    did: str = ""
    seq: int = 0


class Policy(NamedTuple):
    """A policy that came into force. time: us since the epoch."""

    time: int
    log: int
    source: str
    digest: str
    mode: str


class Collector:
    """since, until: as events write times; session: as `Filter` takes it. limit: marks to draw.

    events, operations and what else is counted are of the time and session that were asked for. first, last: us since
    the epoch. strange: notices of incidents that could not be read; undated: events without a time or a name.
    """

    def __init__(
        self,
        since: str | None = None,
        until: str | None = None,
        session: str | None = None,
        limit: int | None = None,
    ) -> None:
        self._span = Filter(since=since, until=until)
        self._session = None if session is None else Filter(session=session)
        self._wanted_paths: set[tuple[int, str]] = set()
        self._known: dict[int, Gatherer] = {}
        self.pictures = Pictures(limit)
        self.counts = Counts()
        self.incidents: deque[Told] = deque(maxlen=MAX_TOLD)
        self.outcomes: Counter[str] = Counter()
        self.culprits: Counter[tuple[str, str]] = Counter()
        self.hit: set[tuple[int, str]] = set()
        self.forgotten = self.stale = self.fences = self.unseen = 0
        self.gaps = self.errors = self.events = self.undated = 0
        self.first = self.last = 0
        self.mounts: dict[int, tuple[str, str]] = {}
        self.policies: list[Policy] = []

    @property
    def strange(self) -> int:
        return sum(known.strange for known in self._known.values())

    def feed(self, event: Mapping[str, Any], log: int = 0) -> None:
        """Takes in one event, whatever it holds. In the order of its log."""
        op, time = event.get("op"), micros(event.get("time"))
        if time is None or not isinstance(op, str):
            self.undated += 1
            return
        known = self._known.get(log)
        if known is None:
            known = self._known[log] = Gatherer()
        found = known.take(event)
        if op in ("start", "policy"):
            self._guard(event, time, log)
        if op == "process" or not self._span.match(event) or not self._wanted(event, log):
            return
        self.events += 1
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)
        if op == "gap":
            self.gaps += max(0, number(event.get("count")))
        self.errors += op == "error"
        self.unseen += op == "unseen"
        if isinstance(event.get("writer"), dict):
            self.counts.add(event)
        picture = self.pictures.picture(log, event, time)
        if picture is None:
            return
        if isinstance(found, Incident):
            self._incident(picture, found, time, log, known)
        elif isinstance(found, Forgotten):
            self._forgotten(picture, found, time)
        else:
            self.fences += op == "fence" and event.get("change") == "opened"
            self.stale += op == "stale"
            draw.draw(self.pictures, picture, event, time)

    def _wanted(self, event: Mapping[str, Any], log: int) -> bool:
        """Whether the event is of a session that was asked for; notices that name only the file are, too, and holes in
        the log, since nobody knows of what."""
        if self._session is None or event.get("op") == "gap":
            return True
        name = (log, transcript_of(event))
        if self._session.match(event):
            if name[1] and len(self._wanted_paths) < MAX_SESSIONS:
                self._wanted_paths.add(name)
            return True
        return name in self._wanted_paths

    def _incident(self, picture: Picture, found: Incident, time: int, log: int, known: Gatherer) -> None:
        number = self.outcomes.total() + 1
        culprit = known.culprit(found)
        lost = found.outcome != "saved"
        self.outcomes["lost" if lost else "saved"] += 1
        lane, did = text(culprit_lane(found)), done(found)
        if len(self.culprits) < MAX_CULPRITS or (lane, did) in self.culprits:
            self.culprits[lane, did] += 1
        if len(self.hit) < MAX_SESSIONS:
            self.hit.add((log, found.session or found.path))
        self.pictures.incident(picture, draw.blame(found, number, time))
        change = found.culprit
        did, seq = ("", 0) if change is None else (known.did(change), known.seq(change))
        self.incidents.append(Told(number, log, found, known.owner(found), culprit, did, seq))

    def _forgotten(self, picture: Picture, found: Forgotten, time: int) -> None:
        self.forgotten += 1
        self.pictures.note(picture, time, draw.forgotten(found))

    def _guard(self, event: Mapping[str, Any], time: int, log: int) -> None:
        if event.get("op") == "start":
            self.mounts[log] = (text(event.get("mountpoint")), text(event.get("version")))
            policy = mapping(event.get("policy"))
            mode = text(mapping(event.get("options")).get("mode"))
            self._policy(Policy(time, log, text(policy.get("source")), text(policy.get("digest")), mode))
        elif event.get("change") == "loaded":
            digest, mode = text(event.get("new")), text(event.get("mode"))
            self._policy(Policy(time, log, text(event.get("source")), digest, mode))

    def _policy(self, found: Policy) -> None:
        last = next((each for each in reversed(self.policies) if each.log == found.log), None)
        if last is None or last[2:] != found[2:]:
            self.policies = [*self.policies[1 - MAX_POLICIES :], found]
