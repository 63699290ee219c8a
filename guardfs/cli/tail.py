"""`guardfs tail`: who writes what, one line an event."""

from __future__ import annotations

import difflib
import heapq
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import click

from guardfs.audit.follow import Follower, follow, time_of
from guardfs.audit.levels import CHANGES, NOTICES, QUIET
from guardfs.audit.read import Line, events, events_backward, number_of
from guardfs.audit.select import Filter
from guardfs.audit.show import Shower
from guardfs.cli.logs import Log, find
from guardfs.cli.span import moment_of

DEFAULT_LINES = 20

SLACK = timedelta(minutes=5)
"""How far the times of events may run against their order in the log: held or merged writes, a clock that was
set."""

KNOWN_OPS = CHANGES | QUIET | NOTICES


@click.command(
    name="tail",
    epilog="Example:  guardfs tail --follow --op write --path '*.jsonl'",
)
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--audit", metavar="FILE", help="Read this log instead of those of the guards mounted now.")
@click.option("-f", "--follow", "live", is_flag=True, help="Go on with what comes; survives rotation.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), metavar="N", help="The last N events (20; all with --since)."
)
@click.option("--lane", metavar="GLOB", help="Only lanes like this, and those within them.")
@click.option("--process", metavar="GLOB|PID", help="Only threads, executables or process ids like this.")
@click.option("--session", metavar="S", help="Only sessions that begin like this.")
@click.option("--op", "ops", multiple=True, metavar="O", help="Only this operation; may be repeated.")
@click.option("--path", metavar="GLOB", help="Only paths or file names like this.")
@click.option(
    "--verdict", metavar="V", help="Only what got, or would have got, this: allow, stage, wait or deny."
)
@click.option("--rule", metavar="GLOB", help="Only what a rule like this has decided.")
@click.option("--errors", is_flag=True, help="Only what failed, and gaps in the log.")
@click.option("--since", metavar="T", help="From this time on: 10m, 2h, 14:30, 2026-05-23T03:37.")
@click.option("--until", metavar="T", help="Up to this time.")
@click.option("--json", "as_json", is_flag=True, help="The events as they stand in the log.")
def command(
    directory: str | None,
    audit: str | None,
    live: bool,
    lines: int | None,
    lane: str | None,
    process: str | None,
    session: str | None,
    ops: tuple[str, ...],
    path: str | None,
    verdict: str | None,
    rule: str | None,
    errors: bool,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Show who writes what, live. DIR: a guarded directory; without it, of all guards."""
    if live and until is not None:
        raise click.UsageError("--until ends and --follow does not; leave one out")
    if directory is not None and audit is not None:
        raise click.UsageError("DIR and --audit both name a log; leave one out")
    now = datetime.now().astimezone()
    wanted = Filter(
        lane=lane,
        process=process,
        session=session,
        ops=frozenset(map(_op, ops)),
        path=path,
        verdict=verdict,
        rule=rule,
        errors=errors,
        since=moment_of("--since", since, now),
        until=moment_of("--until", until, now),
    )
    if lines is None and since is None and until is None:
        lines = DEFAULT_LINES
    printer = _Printer(wanted, as_json, live)
    logs = find(directory, audit)
    followers = [Follower(log.file) for log in logs] if live else []
    newest: dict[str, int] = {}
    try:
        for line in _before(logs, wanted, lines, newest):
            printer.print(line)
        for follower in followers:
            for line in follower.poll():  # came while the lines before were read
                seq = line.event.get("seq") if line.event else None
                if not isinstance(seq, int) or seq > newest.get(follower.path, 0):
                    printer.print(line)
        if live:
            for line in follow(followers):
                printer.print(line)
        sys.stdout.flush()
    finally:
        for follower in followers:
            follower.close()


def _before(logs: list[Log], wanted: Filter, count: int | None, newest: dict[str, int]) -> Iterator[Line]:
    """What the logs hold already, in order of time; the last *count* that are wanted, or all. Notes the
    newest seq of each."""
    if count is None:
        return heapq.merge(*(_noting(log, newest) for log in logs), key=time_of)
    found: list[Line] = []
    for log in logs:
        found += reversed(list(_last(log, wanted, count, newest)))
    if len(logs) > 1:
        found.sort(key=time_of)
    return iter(found[-count:] if count else ())


def _noting(log: Log, newest: dict[str, int]) -> Iterator[Line]:
    for line in events(log.file):
        _note(line, log.file, newest)
        yield line


def _last(log: Log, wanted: Filter, count: int, newest: dict[str, int]) -> Iterator[Line]:
    """The last *count* wanted lines of one log, newest first; stops reading where nothing wanted can come."""
    oldest = None
    if wanted.since is not None:
        oldest = (datetime.fromisoformat(wanted.since) - SLACK).isoformat(timespec="microseconds")
    left = count
    for line in events_backward(log.file):
        _note(line, log.file, newest)
        if left <= 0 or (oldest is not None and line.event is not None and time_of(line) < oldest):
            break
        if line.event is None or wanted.match(line.event):
            yield line
            left -= 1


def _note(line: Line, file: str, newest: dict[str, int]) -> None:
    seq = line.event.get("seq") if line.event else None
    if isinstance(seq, int) and seq > newest.get(file, 0):
        newest[file] = seq


class _Printer:
    def __init__(self, wanted: Filter, as_json: bool, live: bool) -> None:
        terminal = sys.stdout.isatty()
        self._wanted = wanted
        self._json = as_json
        self._flush = live
        self._shower = Shower(
            colour=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
            width=shutil.get_terminal_size().columns if terminal else None,
        )

    def print(self, line: Line) -> None:
        if line.event is None:
            where = line.where if line.number else f"{line.file}:{number_of(line) or '?'}"
            sys.stdout.flush()
            sys.stderr.write(f"guardfs tail: {where}: not an event of a log; skipped\n")
            return
        if not self._wanted.match(line.event):
            return
        if self._json:
            sys.stdout.write(line.raw.decode("utf-8", "backslashreplace") + "\n")
        else:
            text = self._shower.line(line.event) + "\n"
            encoding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        if self._flush:
            sys.stdout.flush()


def _op(op: str) -> str:
    if op not in KNOWN_OPS:
        near = difflib.get_close_matches(op, KNOWN_OPS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {' '.join(sorted(KNOWN_OPS))}"
        raise click.UsageError(f"--op {op!r}: no such operation; {hint}")
    return op
