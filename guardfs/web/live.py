"""What the live page knows of one guard: a window on its log, and what is new in it since somebody last looked. Pure.

Whoever looks keeps nothing here: a number, the `stamp` of what was last told, is all there is between two looks. So a
reader that is slow, or was away, is told at once what is new, and nothing is kept for it meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from guardfs.audit.incidents import Forgotten, Gatherer, Incident
from guardfs.audit.select import Filter
from guardfs.report import draw
from guardfs.report.model import newer
from guardfs.report.pictures import Picture, Pictures
from guardfs.report.values import items, mapping, micros, number, text
from guardfs.web.sessions import Owner, Pending, Session
from guardfs.web.tail import Tail

WINDOW = 600_000_000
"""us of the log that are drawn."""

SESSIONS = 1_000

MARKS = 1_500
"""Changes of one session that are drawn, and as many looks."""

ALL_MARKS = 100_000
"""Of all sessions: some 30 MB."""

ROWS = 300
"""Rows of the tail that are told at once."""

LAG = 5_000_000
"""us by which log and status may differ about what there is."""

_GONE = 2_000


class Cursor(NamedTuple):
    """Up to which stamp a reader knows the list of sessions, the tail and the picture; -1: nothing."""

    sessions: int = -1
    tail: int = -1
    picture: int = -1


class Live:
    """Takes in the events of one log, in order. stamp: counts them. sessions: bound on these; window: us."""

    def __init__(self, sessions: int = SESSIONS, window: int = WINDOW, marks: int = MARKS) -> None:
        self.stamp = 0
        self.newest = 0
        """us since the epoch: the latest event."""
        self.oldest = 0
        """The first that was taken in."""
        self.lost = self.saved = self.events = 0
        self.sessions: dict[str, Session] = {}
        """By name; those that changed last are last."""
        self.tail = Tail()
        self._window, self._marks = window, marks
        self._pictures = Pictures(1 << 60, sessions)
        self._known = Gatherer()
        self._names: dict[str, str] = {}
        self._gone: deque[tuple[int, str, str]] = deque(maxlen=_GONE)

    def feed(self, event: Mapping[str, Any]) -> None:
        """Takes in one event, whatever it holds."""
        op, time = event.get("op"), micros(event.get("time"))
        if time is None or not isinstance(op, str):
            return
        self.stamp += 1
        self.events += 1
        self._pictures.stamp = self.stamp
        self.oldest = self.oldest or time
        self.newest = max(self.newest, time)
        found = self._known.take(event)
        if op == "start":
            self._restarted()
        if op != "process":
            self.tail.add(self.stamp, event, time)
        picture = self._picture(event, time)
        if picture is None:
            return
        if isinstance(found, Incident):
            self.lost += found.outcome != "saved"
            self.saved += found.outcome == "saved"
            self._pictures.incident(picture, draw.blame(found, self.lost + self.saved, time))
        elif isinstance(found, Forgotten):
            self._pictures.note(picture, time, draw.forgotten(found))
        else:
            draw.draw(self._pictures, picture, event, time)
        self._session(picture).take(event, picture, time)

    def trim(self, now: int) -> None:
        """Lets go of what has left the window. now: us since the epoch; a log that is ahead of it is not believed. To
        be called about once a second."""
        share = max(100, min(self._marks, ALL_MARKS // max(1, len(self._pictures.pictures))))
        self._pictures.trim(min(self.newest, now) - self._window, share)

    def adopt(self, status: Mapping[str, Any], now: int) -> None:
        """Takes from a guard's status the fences and branches that are older than what was read of its log."""
        fences, branches = (mapping(status.get(key)) for key in ("fences", "branches"))
        for each in items(fences.get("list")):
            since = now - number(each.get("age_ms")) * 1000
            session = self._of(each, since)
            if session is not None:
                lane = text(each.get("owner")) or "?"
                owner = Owner(lane, number(each.get("token")), since, number(each.get("tgid")))
                session.owned(text(each.get("path")), owner)
        for each in items(branches.get("list")):
            since = number(each.get("opened_ns")) // 1000
            session = self._of(each, since) if "branch" in each else None
            if session is not None:
                size, error = number(each.get("bytes")), text(each.get("error"))
                lane = text(each.get("lane")) or "?"
                pending = Pending(lane, text(each.get("path")), since, size, error)
                session.waits(number(each.get("branch")), pending)

    def correct(self, status: Mapping[str, Any], now: int) -> None:
        """Forgets owners and branches that the guard knows nothing of: their end may be missing in the log. A status
        that does not list all of them says nothing."""
        fences, branches = (mapping(status.get(key)) for key in ("fences", "branches"))
        listed, waiting = items(fences.get("list")), items(branches.get("list"))
        known = {(text(each.get("path")), number(each.get("token"))) for each in listed}
        numbers = {number(each.get("branch")) for each in waiting}
        if number(fences.get("open"), -1) != len(listed):
            known = set().union(*(each.owners for each in self.sessions.values()))
        if number(branches.get("open"), -1) + number(branches.get("ghosts")) != len(waiting):
            numbers = set().union(*(each.pending for each in self.sessions.values()))
        for session in list(self.sessions.values()):
            if session.correct(known, numbers, now - LAG):
                self.stamp += 1
                session.stamp = self.stamp
                self.sessions[session.name] = self.sessions.pop(session.name)

    def since(self, cursor: Cursor, watched: str = "", wanted: Filter | None = None) -> dict[str, Any]:
        """What is new, JSON-able; empty if nothing is. watched: the session whose picture is wanted.

        sessions: rows (see `Session.row`); all: there are no others; gone: names, and what they are called now, if they
        are. tail: rows, more: not all that are new; fresh: what was told before is void. picture: see
        `guardfs.report.model.newer`, fresh likewise.
        """
        found: dict[str, Any] = {}
        everything = cursor.sessions < 0 or (len(self._gone) == _GONE and cursor.sessions < self._gone[0][0])
        rows = self._changed(-1 if everything else cursor.sessions)
        if rows or everything:
            found["sessions"] = rows
        if everything:
            found["all"] = True
        elif gone := [[name, now] for stamp, name, now in self._gone if stamp > cursor.sessions]:
            found["gone"] = gone
        tail, more = self.tail.since(cursor.tail, wanted or Filter(), ROWS)
        if tail or cursor.tail < 0:
            found["tail"] = {"rows": tail, "more": more, "fresh": cursor.tail < 0}
        session = self.sessions.get(watched)
        if session is not None and session.stamp > cursor.picture:
            drawn = newer(list(session.pictures.values()), cursor.picture)
            found["picture"] = {**drawn, "fresh": cursor.picture < 0}
        return found

    def totals(self) -> dict[str, int]:
        """Counts since the log was begun to be read. open: fences, waiting: branches, now."""
        return {
            "sessions": len(self.sessions),
            "events": self.events,
            "lost": self.lost,
            "saved": self.saved,
            "open": sum(len(each.owners) for each in self.sessions.values()),
            "waiting": sum(len(each.pending) for each in self.sessions.values()),
        }

    # ---- sessions

    def _changed(self, since: int) -> list[dict[str, Any]]:
        rows = []
        for session in reversed(self.sessions.values()):
            if session.stamp <= since:
                break
            rows.append(session.row())
        return rows

    def _picture(self, event: Mapping[str, Any], time: int) -> Picture | None:
        given_up = self._pictures.given_up
        picture = self._pictures.picture(0, event, time)
        if self._pictures.given_up != given_up:
            self._sweep()
        return picture

    def _session(self, picture: Picture) -> Session:
        """The session of a transcript, as changed now. The registry may give it another name at any time."""
        name = picture.session or picture.path
        before = self._names.get(picture.path)
        found = self.sessions.pop(name, None) or Session(name)
        if before is not None and before != name:
            self._renamed(before, found, picture.path)
        self._names[picture.path] = name
        found.pictures[picture.path] = picture
        found.stamp = self.stamp
        self.sessions[name] = found
        return found

    def _renamed(self, before: str, session: Session, path: str) -> None:
        """A transcript of *before* is *session*'s."""
        old = self.sessions.get(before)
        if old is None:
            return
        old.pictures.pop(path, None)
        for key in [key for key in old.owners if key[0] == path]:
            session.owners[key] = old.owners.pop(key)
        if not old.pictures:
            session.pending |= old.pending
            self._leave(before, session.name)

    def _leave(self, name: str, now: str = "") -> None:
        del self.sessions[name]
        self._gone.append((self.stamp, name, now))

    def _sweep(self) -> None:
        """Pictures were given up."""
        for path, name in list(self._names.items()):
            if (0, path) in self._pictures.pictures:
                continue
            del self._names[path]
            session = self.sessions[name]
            session.pictures.pop(path, None)
            session.stamp = self.stamp
            if not session.pictures:
                self._leave(name)

    def _restarted(self) -> None:
        """A guard was mounted anew: no fence outlives a mount. Branches are told of again."""
        for session in list(self.sessions.values()):
            if session.owners:
                session.owners.clear()
                session.stamp = self.stamp
                self.sessions[session.name] = self.sessions.pop(session.name)

    def _of(self, about: Mapping[str, Any], time: int) -> Session | None:
        """The session of a transcript that the status names."""
        name = text(about.get("path"))
        if not name:
            return None
        self.stamp += 1
        event = {"path": name, "session": name.removesuffix(".jsonl")}
        picture = self._picture(event, time)
        if picture is None:
            return None
        picture.events -= 1
        return self._session(picture)
