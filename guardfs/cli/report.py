"""`guardfs report`: one page that shows what happened, to attach to a bug report."""

from __future__ import annotations

import heapq
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import repeat

import click

from guardfs import __version__
from guardfs.audit.follow import time_of
from guardfs.audit.read import Line, events, files_of
from guardfs.audit.show import safe
from guardfs.cli.logs import find
from guardfs.cli.progress import Progress
from guardfs.cli.span import moment_of
from guardfs.errors import GuardError
from guardfs.report.collect import Collector
from guardfs.report.page import MARK, Origin, page

STDOUT = "-"


@click.command(
    name="report",
    epilog="Example:  guardfs report /var/log/guardfs/audit.jsonl --since 2h -o report.html",
)
@click.argument("audits", metavar="[AUDIT|DIR]...", nargs=-1)
@click.option("-o", "--output", metavar="FILE", help="Write the page there; - is standard output.")
@click.option(
    "--audit", "named", metavar="FILE", multiple=True, help="The same as AUDIT, as other commands have it."
)
@click.option("--since", metavar="T", help="From this time on: 10m, 2h, 14:30, 2026-05-23T03:37.")
@click.option("--until", metavar="T", help="Up to this time.")
@click.option("--session", metavar="S", help="Only sessions that begin like this.")
@click.option("--force", is_flag=True, help="Write over a file that is no earlier report.")
def command(
    audits: tuple[str, ...],
    output: str | None,
    named: tuple[str, ...],
    since: str | None,
    until: str | None,
    session: str | None,
    force: bool,
) -> None:
    """Draw who wrote when, which turns died of it, and tell each story: one page that needs nothing else.

    AUDIT: a log as the guard writes it, with its rotated files; DIR: a guarded directory. Without any, of all guards.
    An earlier report at FILE is replaced; another file is not, unless --force says so. The page holds no message text.
    """
    now = datetime.now().astimezone()
    span = [moment_of(option, value, now) for option, value in (("--since", since), ("--until", until))]
    logs = _logs((*audits, *named))
    target = _target(output, logs, force=force)
    found = Collector(since=span[0], until=span[1], session=session)
    skipped = 0
    progress = Progress(logs)
    for log, line in _lines(logs):
        progress.step(len(line.raw) + 1)
        if line.event is None:
            skipped += 1
        else:
            found.feed(line.event, log)
    progress.end()
    asked = ", ".join(
        f"{name} {value}"
        for name, value in (("since", since), ("until", until), ("session", session))
        if value
    )
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    text = page(found, Origin(list(map(safe, logs)), __version__, made, safe(asked), skipped))
    _write(target, text)
    if target != STDOUT:
        _say(target, found, len(text))


def _logs(named: tuple[str, ...]) -> list[str]:
    """The log files: those named, those of named directories' guards, or of all guards."""
    if not named:
        return [log.file for log in find()]
    found = []
    for name in named:
        found += [log.file for log in (find(name) if os.path.isdir(name) else find(audit=name))]
    return list(dict.fromkeys(found))


def _lines(logs: list[str]) -> Iterator[tuple[int, Line]]:
    """The lines of all logs with their log's number, in order of time."""
    numbered = [zip(repeat(number), events(log), strict=False) for number, log in enumerate(logs)]
    return numbered[0] if len(logs) == 1 else heapq.merge(*numbered, key=lambda each: time_of(each[1]))


def _target(output: str | None, logs: list[str], *, force: bool) -> str:
    """Where the page goes. Looked at before the log is read: that may take minutes."""
    if output is None:
        if sys.stdout.isatty():
            raise click.UsageError("a page is nothing for a terminal; name a file with -o FILE")
        return STDOUT
    if output == STDOUT:
        return STDOUT
    directory = os.path.dirname(output) or "."
    if not os.path.isdir(directory):
        raise GuardError(f"{directory}: no such directory", "name a file in one that exists with -o FILE")
    try:
        facts = os.stat(output)
    except FileNotFoundError:
        return output
    if stat.S_ISDIR(facts.st_mode):
        raise GuardError(f"{output}: is a directory", "name a file with -o FILE")
    for log in logs:
        for file in files_of(log):
            if os.path.exists(file) and os.path.samefile(file, output):
                raise GuardError(f"{output}: is the log itself", "name another file with -o FILE")
    if stat.S_ISREG(facts.st_mode) and not force and not _is_report(output):
        raise GuardError(
            f"{output}: exists, and is no earlier report", "name another file, or write over it with --force"
        )
    return output


def _is_report(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(len(MARK))
    return start in (MARK, b"")


def _write(target: str, text: bytes) -> None:
    """Whole or not at all, and for its owner only, as the log is."""
    if target == STDOUT:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe, a terminal
        with open(target, "wb") as file:
            file.write(text)
        return
    target = os.path.realpath(target)
    descriptor, name = tempfile.mkstemp(prefix=".guardfs-report-", dir=os.path.dirname(target))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _say(target: str, found: Collector, size: int) -> None:
    """One line on standard error: what is in it."""
    lost, saved = found.outcomes["lost"], found.outcomes["saved"]
    said = [f"{lost:,} turns lost" if lost != 1 else "1 turn lost"]
    said += [f"{saved:,} saved"] if saved else []
    said.append(f"{found.counts.operations:,} operations")
    sys.stderr.write(f"guardfs: {safe(target)}: {', '.join(said)}; {max(1, size // 1000):,} kB\n")
