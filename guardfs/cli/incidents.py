"""`guardfs incidents`: which turns died, and of whom."""

from __future__ import annotations

import heapq
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import click

from guardfs.audit.follow import Follower, follow, time_of
from guardfs.audit.incidents import (
    Forgotten,
    Gatherer,
    Incident,
    Summary,
    counts,
    culprit_lane,
    joined,
    lasted_ms,
    record_text,
    took,
    writers,
)
from guardfs.audit.read import Line, events
from guardfs.audit.select import Filter
from guardfs.audit.show import CYAN, DIM, GREEN, RED, YELLOW, safe, short
from guardfs.cli.clock import day_clock
from guardfs.cli.logs import base, find
from guardfs.cli.span import moment_of
from guardfs.cli.table import Cell, Column, Part, Table, terminal


@click.command(
    name="incidents",
    epilog="Example:  guardfs incidents --since 1d    then: guardfs explain --event SEQ",
)
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--audit", metavar="FILE", help="Read this log instead of those of the guards mounted now.")
@click.option("-f", "--follow", "live", is_flag=True, help="Go on with what comes; survives rotation.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="The last N.")
@click.option("--session", metavar="S", help="Only sessions that begin like this.")
@click.option("--since", metavar="T", help="From this time on: 10m, 2h, 14:30, 2026-05-23T03:37.")
@click.option("--until", metavar="T", help="Up to this time.")
@click.option("--all", "everything", is_flag=True, help="Forgotten records, too: no turn died of them.")
@click.option("--json", "as_json", is_flag=True, help="All that is known of each, one JSON object a line.")
def command(
    directory: str | None,
    audit: str | None,
    live: bool,
    lines: int | None,
    session: str | None,
    since: str | None,
    until: str | None,
    everything: bool,
    as_json: bool,
) -> int:
    """Show the turns that died, or would have: when, whose, who did it. DIR: a guarded directory; without it, of all
    guards.

    Exit status 0: there are none. 1: there are some. 2: it cannot be told.
    """
    if live and until is not None:
        raise click.UsageError("--until ends and --follow does not; leave one out")
    if directory is not None and audit is not None:
        raise click.UsageError("DIR and --audit both name a log; leave one out")
    now = datetime.now().astimezone()
    wanted = Filter(
        session=session, since=moment_of("--since", since, now), until=moment_of("--until", until, now)
    )
    logs = find(directory, audit)
    followers = [Follower(log.file) for log in logs] if live else []
    report = _Report(wanted, everything, as_json)
    try:
        before = heapq.merge(*(events(log.file) for log in logs), key=time_of)
        report.print(report.of(before, lines))
        if live:
            report.flush()
            came = (line for follower in followers for line in follower.poll())
            for each in report.of(_newer(came, report.newest)):
                report.print([each])
            for line in follow(followers):
                report.print(report.of([line]))
                report.flush()
        if not as_json:
            report.summary()
        report.flush()
        report.strange()
    finally:
        for follower in followers:
            follower.close()
    return 1 if report.seen.outcomes else 0


Row = tuple[Incident | Forgotten, dict[str, Any], Gatherer]

COLUMNS = (
    Column("EVENT"),
    Column("TIME"),
    Column("TURN"),
    Column("AFTER", right=True),
    Column("SESSION"),
    Column("OWNER"),
    Column("CULPRIT", second=True),
    Column("OPERATION", second=True),
)
"""AFTER: how long the owner had relied on the transcript when its turn died."""

CULPRIT = "1;31"
"""Bold red: the one thing that people look for."""


class _Report:
    """Prints what is found. seen: counts of it. newest: the last seq of each log."""

    def __init__(self, wanted: Filter, everything: bool, as_json: bool) -> None:
        colour, width = terminal()
        self._wanted, self._all, self._json = wanted, everything, as_json
        self._table = Table(COLUMNS, colour=colour, width=width)
        self._known: dict[str, Gatherer] = {}
        self.seen = Summary()
        self.newest: dict[str, int] = {}

    def of(self, found: Iterable[Line], last: int | None = None) -> Iterator[Row]:
        """The rows of the lines *found*, the *last* ones or all."""
        rows = self._rows(found)
        return rows if last is None else iter(deque(rows, maxlen=last))

    def _rows(self, found: Iterable[Line]) -> Iterator[Row]:
        for line in found:
            event = line.event
            if event is None:
                continue
            log = base(line.file)
            seq = event.get("seq")
            if isinstance(seq, int):
                self.newest[log] = seq
            known = self._known.get(log)
            if known is None:
                known = self._known[log] = Gatherer()
            told = known.take(event)
            if told is not None and self._wanted.match(event):
                yield told, event, known

    def print(self, rows: Iterable[Row]) -> None:
        """Counts and shows each."""
        for told, event, known in rows:
            self.seen.add(told)
            if isinstance(told, Forgotten) and not self._all:
                continue
            if self._json:
                sys.stdout.write(json.dumps(joined(told, known, event), ensure_ascii=True) + "\n")
            else:
                self._table.row(
                    _forgotten(told, known) if isinstance(told, Forgotten) else _incident(told, known)
                )

    def summary(self) -> None:
        """The last lines."""
        seen, line = self.seen, self._table.line
        total = sum(seen.outcomes.values())
        if not total:
            line("no incident: no turn died of a changed transcript")
        else:
            lost, saved = seen.outcomes["lost"], seen.outcomes["saved"]
            said = [f"{lost} lost"] if lost else []
            said += [f"{saved} saved"] if saved else []
            many = f"{total} incident{'s' if total > 1 else ''} in {len(seen.sessions)} "
            many += "sessions" if len(seen.sessions) > 1 else "session"
            line(f"\n{many}: {', '.join(said)}")
            line(f"by writer:     {counts(seen.lanes)}")
            line(f"by operation:  {counts(seen.operations)}")
            line("`guardfs explain --event N` tells one in full")
        if seen.forgotten:
            hint = "" if self._all else "; --all shows them"
            times = "once" if seen.forgotten == 1 else f"{seen.forgotten} times"
            line(f"no death, but records were forgotten {times}{hint}")

    def flush(self) -> None:
        """Shows what is held back."""
        self._table.flush()

    def strange(self) -> None:
        """Says what could not be read."""
        number = sum(known.strange for known in self._known.values())
        if number:
            some = "a notice" if number == 1 else f"{number} notices"
            sys.stderr.write(f"guardfs incidents: {some} could not be read; skipped\n")


def _incident(found: Incident, known: Gatherer) -> list[Cell]:
    who, change = known.culprit(found), found.culprit
    did = [Part(known.did(change) if change is not None else found.difference(), YELLOW)]
    if found.count > 1:
        did.append(Part(f" and {found.count - 1} more"))
    if found.kind == "own":
        did.append(Part("; the owner's own process, outside its lock"))
    elif who is not None and who.command:
        parent = f" from {safe(who.parents[0])}" if who.parents else ""
        did.append(Part(f"; {who.command}{parent}", DIM))
    lasted = lasted_ms(found)
    return [
        Part(f"#{found.seq}", DIM),
        Part(day_clock(found.time)),
        Part(safe(found.outcome), RED if found.outcome == "lost" else GREEN),
        Part("" if lasted is None else took(lasted)),
        Part(session(found), CYAN),
        Part(safe(found.owner)),
        Part(who.name if who is not None else culprit_lane(found), CULPRIT),
        did,
    ]


def _forgotten(found: Forgotten, known: Gatherer) -> list[Cell]:
    records = [record for change in found.changes for record in change.records]
    what = ", ".join(map(record_text, records[:3])) + (", …" if len(records) > 3 else "")
    return [
        Part(f"#{found.seq}", DIM),
        Part(day_clock(found.time)),
        Part("lived", GREEN),
        Part(""),
        Part(session(found), CYAN),
        Part(safe(found.owner)),
        Part(", ".join(who.name for who in writers(found.changes, known)) or "not seen", YELLOW),
        Part(f"{what} forgotten: the owner went on without", YELLOW),
    ]


def session(found: Incident | Forgotten) -> str:
    """The session's key; the transcript where that is not known."""
    return safe(found.session) if ":" in found.session else short(found.path or found.session)


def _newer(lines: Iterator[Line], newest: dict[str, int]) -> Iterator[Line]:
    for line in lines:
        seq = line.event.get("seq") if line.event else None
        if isinstance(seq, int) and seq > newest.get(base(line.file), 0):
            yield line
