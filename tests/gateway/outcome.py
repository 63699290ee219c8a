"""What came of rows that were played: what the gateway's own log says, what the audit log says, what the files hold.

A turn that was lost counts as a death if the gateway says that its transcript had changed. `file lock stale`, a race
inside the gateway that needs no other writer, is counted apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gateway.gateway import Gateway
from tests.gateway.play import Played
from tests.gateway.reach import History

Event = dict[str, Any]

_LOST = re.compile(
    r"^(?P<time>\S+) .*lane task error: lane=session:(?P<session>\S+) .*(?P<why>"
    r"session file changed while embedded prompt lock was released|file lock stale for):? (?P<path>[^\"\s]+)"
)


@dataclass(frozen=True)
class Lost:
    """A turn lost to its transcript or its lock file, in the gateway's own words. at: wall clock, s, of the line."""

    session: str
    at: float
    path: str
    stale: bool


def lost(gateway: Gateway) -> list[Lost]:
    """All of them, in the order of the log, which tells each several times; the line that names the session counts."""
    found = []
    for line in gateway.log.read_text(errors="replace").splitlines():
        match = _LOST.search(line)
        if match:
            stale = match["why"].startswith("file lock")
            found.append(Lost(match["session"], _seconds(match["time"]), match["path"], stale))
    return found


def deaths(among: Iterable[Lost], transcript: Path | None = None) -> list[Lost]:
    """Those to a changed transcript; to *transcript*, if it is given."""
    return [one for one in among if not one.stale and (transcript is None or one.path == str(transcript))]


def stale(among: Iterable[Lost], session: str | None = None) -> int:
    """How many died of a stale lock file; of *session*, if it is given."""
    return sum(one.stale and session in (None, one.session) for one in among)


_ABORTED = re.compile(r"session=(?P<session>\S+) .*aborted=true error=agent run aborted for restart")


def aborted(gateway: Gateway, key: str) -> bool:
    """Whether the gateway has ended a run of *key* by itself, because it was asked for a new session or a compaction:
    so does 2026.7.35."""
    text = gateway.log.read_text(errors="replace")
    return any(key.endswith(f":{match['session']}") for match in _ABORTED.finditer(text))


def stories(events: Sequence[Event], transcript: Path | None = None, op: str = "incident") -> list[Event]:
    """The *op* notices of an audit log about *transcript*."""
    return [e for e in events if e["op"] == op and (transcript is None or e["path"] == transcript.name)]


def wrong(events: Sequence[Event], played: Played, change: Event) -> list[str]:
    """What a told change does not say of the culprit as it should; empty if it names the right one."""
    culprit, by = played.culprit, change.get("by", {})
    found = []

    def expect(what: str, told: object, wanted: object) -> None:
        if told != wanted:
            found.append(f"{what}: told {told!r}, was {wanted!r}")

    expect("lane", by.get("lane"), culprit.lane)
    expect("process", by.get("tgid"), culprit.pid)
    expect("change", change.get("change"), culprit.change)
    if culprit.record is not None:
        expect("record", change.get("records", [{}])[0].get("id"), culprit.record)
    if culprit.to is not None:
        beside = str(change.get("to", "")).removeprefix(played.transcript.name)
        if not beside.startswith(culprit.to):
            found.append(f"other name: told {change.get('to')!r}, was ...{culprit.to}")
    own = [
        e
        for e in events
        if e["op"] == culprit.op
        and played.transcript.name in (e.get("path"), e.get("to"))
        and e["writer"]["tid"] == by.get("tid")
        and not e["errno"]
    ]
    if not any(seconds_of(e) <= seconds_of(change) for e in own):
        found.append(f"no {culprit.op} event of this thread on the transcript")
    then = [e for e in own if seconds_of(e) <= seconds_of(change)]
    if any(e["lane"] != culprit.lane for e in then[-1:]):
        found.append(f"the operation's own event says lane {then[-1]['lane']}")
    return found


def seconds_of(event: Event) -> float:
    """When it was, wall clock, s."""
    return _seconds(event["time"])


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()


def astray(played: Played) -> list[str]:
    """What was said, and is not remembered: not in one record, and only one, on the path from the transcript's leaf, or
    from that of the archive (``.reset.``, ``.bak.``) that an operator's own request has made."""
    directory, name = played.transcript.parent, played.transcript.name
    paths = [path for path in directory.iterdir() if path.name.startswith((f"{name}.reset.", f"{name}.bak."))]
    if played.transcript.exists():
        paths.append(played.transcript)
    histories = [History.of(path) for path in paths]
    found = []
    for text in played.said:
        counts = [(each.holds(text), each.holds(text, remembered=False)) for each in histories]
        if (1, 1) not in counts or any(count > (1, 1) for count in counts):
            found.append(text)
    return found


@dataclass
class Tally:
    """One line of a table. astray: texts and records that no agent will remember."""

    turns: int = 0
    deaths: int = 0
    incidents: int = 0
    named: int = 0
    forgotten: int = 0
    stale: int = 0
    astray: int = 0

    def count(self, one: Played, among: Sequence[Lost], events: Sequence[Event] = ()) -> None:
        """Takes in one turn. named: incidents that name the right culprit."""
        told = stories(events, one.transcript)
        self.turns += 1
        self.deaths += len(deaths(among, one.transcript))
        self.incidents += len(told)
        self.named += sum(wrong(events, one, each["culprit"] or {}) == [] for each in told)
        self.forgotten += len(stories(events, one.transcript, "forgotten"))
        self.stale += stale(among, one.key) + one.stale
        self.astray += len(astray(one))


def tallies(
    done: dict[str, list[Future[Played]]], among: Sequence[Lost], events: Sequence[Event] = ()
) -> dict[str, Tally]:
    """A line for each row; what could not be played is not counted."""
    found = {}
    for name, futures in done.items():
        found[name] = Tally()
        for future in futures:
            if future.exception() is None:
                found[name].count(future.result(), among, events)
    return found


def table(title: str, lines: dict[str, Tally]) -> str:
    """As text, one row a line, with the sums at the end."""
    columns = [field.name for field in fields(Tally)]
    total = Tally(*(sum(getattr(line, column) for line in lines.values()) for column in columns))
    width = max(map(len, [*lines, title]))
    heads = [f"{title:{width}}  " + "  ".join(columns)]
    for name, line in [*lines.items(), ("all", total)]:
        cells = (f"{getattr(line, column):{len(column)}}" for column in columns)
        heads.append(f"{name:{width}}  " + "  ".join(cells))
    return "\n".join(heads)
