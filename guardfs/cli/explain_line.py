"""`guardfs explain --log-line`: from the gateway's error line to who broke the turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from guardfs.audit.incidents import Forgotten, Gatherer, Who, incident_facts, joined, writers
from guardfs.audit.logline import MAX_PASTE, Complaint, complaints
from guardfs.audit.match import Death, Found, Remark, Search, best, death_of
from guardfs.audit.read import events
from guardfs.audit.show import DIM, YELLOW, Shower, safe
from guardfs.cli.clock import day_clock
from guardfs.cli.logs import Log, find
from guardfs.cli.table import terminal
from guardfs.cli.turn import TurnStory
from guardfs.errors import GuardError


def explain_line(text: str, directory: str | None, audit: str | None, as_json: bool) -> int:
    """Tell the story of each turn that *text* (``-``: standard input) complains of. 0: all of them are explained. 1:
    not all. Raises GuardError where there is no complaint, or no log."""
    if text == "-":
        text = sys.stdin.buffer.read(MAX_PASTE).decode("utf-8", "replace")
    lines = complaints(text, datetime.now().astimezone())
    if not lines:
        raise GuardError(
            "no error of a gateway in that text",
            "paste the line with `lane task error:` or `session file changed`, in quotes, or pipe it into `-`",
        )
    logs = find(directory, audit)
    searches = []
    for log in logs:
        search = Search(lines)
        for line in events(log.file):
            if line.event is not None:
                search.take(line.event)
        searches.append(search)
    answers = [_Answer(place, line, logs, searches) for place, line in enumerate(lines)]
    if as_json:
        sys.stdout.write(json.dumps([answer.facts() for answer in answers], indent=2) + "\n")
    else:
        colour, width = terminal()
        _write("\n".join(_stories(answers, _Teller(colour, width))))
    return 0 if all(answer.found is not None for answer in answers) else 1


def explain_notice(log: str, seq: int, as_json: bool) -> bool:
    """Tell the story of event *seq* of *log*; False if that is neither an incident nor of forgotten records."""
    known = Gatherer()
    for line in events(log):
        event = line.event
        if event is None:
            continue
        told = known.take(event)
        if event.get("seq") != seq:
            continue
        if told is None:
            return False
        story = TurnStory(colour=terminal()[0])
        if isinstance(told, Forgotten):
            facts, text = joined(told, known, event), story.forgotten(told, writers(told.changes, known))
        else:
            death = death_of(told, event, known)
            facts, text = _death(death), story.text(death)
        _write(json.dumps(facts, indent=2) + "\n" if as_json else text)
        return True
    return False


class _Answer:
    """What the logs say of one line. search: of the log that knows it best."""

    def __init__(self, place: int, line: Complaint, logs: Sequence[Log], searches: Sequence[Search]) -> None:
        self.place, self.line = place, line
        number = best(searches, place)
        self.search, self.log = searches[number], logs[number]
        self.found = self.search.found(place)
        self.logs = logs

    def facts(self) -> dict[str, Any]:
        found = self.found
        facts: dict[str, Any] = {"line": msgspec.to_builtins(self.line), "log": self.log.file}
        if found is not None:
            facts |= {"how": found.how, "shift_hours": found.shift, "rivals": found.rivals}
            facts["incident"] = _death(found.death)
        else:
            facts["incident"] = None
            facts["log_covers"] = [self.search.first, self.search.last]
            facts["transcript_known"] = self.search.seen[self.place]
            facts["meanwhile"] = [dict(remark.event) for remark in self.search.remarks(self.place)]
        return facts


def _death(death: Death) -> dict[str, Any]:
    facts = incident_facts(death.incident, death.event, death.owner, death.culprit)
    return {**facts, "culprit_event": death.seq or None, "did": death.did}


def _stories(answers: Sequence[_Answer], teller: _Teller) -> list[str]:
    """One story a turn, however many of the lines are about it."""
    told: dict[int, list[_Answer]] = {}
    for answer in answers:
        key = -answer.place - 1 if answer.found is None else id(answer.found.death)
        told.setdefault(key, []).append(answer)
    return [teller.story(group) for group in told.values()]


class _Teller:
    def __init__(self, colour: bool, width: int | None) -> None:
        self._colour = colour
        self._story = TurnStory(colour=colour)
        self._shower = Shower(colour=colour, width=None if width is None else width - 2)

    def story(self, group: Sequence[_Answer]) -> str:
        """What is known of one turn."""
        first = group[0]
        if first.found is None:
            return self._unexplained(first)
        return self._story.text(first.found.death, _notes(group, first.found))

    def _unexplained(self, answer: _Answer) -> str:
        line, search = answer.line, answer.search
        lines = [self._paint(_title(line), YELLOW), ""]
        lines += [f"  {text}" for text in _why_not(answer)]
        remarks = search.remarks(answer.place)
        if remarks:
            lines += ["", "What the log has of that time and transcript:"]
            lines += [f"  {self._shower.line(remark.event)}{self._by(remark)}" for remark in remarks]
        return "\n".join(lines) + "\n"

    def _by(self, remark: Remark) -> str:
        command = remark.who.command if remark.who is not None else ""
        return self._paint(f"  {command}", DIM) if command else ""

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text


def _notes(group: Sequence[_Answer], found: Found) -> list[str]:
    notes = []
    lines = sum(answer.line.lines for answer in group)
    lanes = list(dict.fromkeys(lane for answer in group for lane in answer.line.lanes))
    if lines > 1:
        text = f"{lines} lines of the gateway tell of this one turn"
        if len(lanes) > 1:
            text += f": {' and '.join(map(safe, lanes))} are one run nested in two lanes, not two writers"
        notes.append(text)
    if found.how == "latest":
        text = "the line has no time, so this is the latest turn that died"
        notes.append(text + (f", of {found.rivals + 1} it could be" if found.rivals else " and the only one"))
    elif found.how == "day":
        notes.append("the line does not say of which day it is; this is the latest whose time of day fits")
    elif found.how == "zone":
        notes.append(f"the line's clock must be {found.shift:+g} h off the log's (another time zone)")
    return notes


def _title(line: Complaint) -> str:
    when = f"{day_clock(line.time)}  " if line.time else ""
    if line.kind == "other":
        return f"{when}this line is about no transcript"
    what = {
        "changed": "no incident fits this line",
        "stale": "a lock file was taken for stale",
        "locked": "a lock file was waited for in vain",
    }
    return f"{when}{what[line.kind]}"


def _why_not(answer: _Answer) -> list[str]:
    line, search = answer.line, answer.search
    if line.kind == "other":
        error = safe(line.error)[:200] or "it does not say what went wrong"
        return [
            f"the error is: {error}",
            "it is no death by a changed transcript, so a guard has nothing to tell of it",
        ]
    return [*_meaning(line, search), *_coverage(answer)]


def _meaning(line: Complaint, search: Search) -> list[str]:
    if line.kind == "stale":
        return [
            "no transcript was changed: the gateway found a lock file and took it for a dead process's. This seems to",
            "be a race inside the gateway, between making its lock file and noting that it has it.",
        ]
    if line.kind == "locked":
        who = search.who(line.pid) if line.pid is not None else None
        holder = "the line does not say by whom" if line.pid is None else f"by process {line.pid}"
        known = f": {who.name} {who.command}" if isinstance(who, Who) else ""
        return [f"no transcript was changed: its lock file was held all the time, {holder}{known}"]
    return []


def _coverage(answer: _Answer) -> list[str]:
    """Why the log has no incident for it, as far as it can be told."""
    line, search, place = answer.line, answer.search, answer.place
    name = safe(line.file or f"session {line.session}" if line.file or line.session else "")
    logs = ", ".join(safe(log.file) for log in answer.logs)
    found = []
    if name and not search.seen[place]:
        found.append(f"{name} is in no event of {logs}")
        found.append("name the log of the guard that was on its directory, with DIR or --audit FILE")
    if line.time and search.first and not search.covers(place):
        found.append(
            f"the log is of {day_clock(search.first)} to {day_clock(search.last)}: it does not reach to the line"
        )
    elif line.kind == "changed" and search.seen[place]:
        found.append(
            f"the guard saw nothing break a fence on it{'' if line.time is None else ' in that time'}"
        )
        closest = search.closest(place)
        if closest is not None:
            when = day_clock(closest.incident.time)
            found.append(f"the closest one that died on it: #{closest.incident.seq}, of {when}")
    if not search.incidents and line.kind == "changed":
        found.append(
            "there is no incident in the log at all: was a guard mounted then, and the fences not off?"
        )
    elif line.kind == "changed":
        found.append("`guardfs incidents` lists all that there are")
    return found


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
