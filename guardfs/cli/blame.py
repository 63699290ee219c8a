"""`guardfs blame`: who wrote each record of a transcript."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import click
import msgspec

from guardfs.audit.blame import Blame, Ledger, Written
from guardfs.audit.read import events
from guardfs.audit.show import safe
from guardfs.cli.blame_rows import Picture, Row, Totals
from guardfs.cli.logs import Log, find
from guardfs.cli.policy_of import Named, named_by
from guardfs.errors import GuardError
from guardfs.policy import model
from guardfs.policy.load import load
from guardfs.policy.problem import PolicyError
from guardfs.transcript.chain import Fork, History
from guardfs.transcript.formats import FORMATS, PI, Format
from guardfs.transcript.positions import MAX_LINE, Position, positions
from guardfs.transcript.text import text_of

CHUNK = 1 << 20


@click.command(
    name="blame",
    epilog="Example:  guardfs blame ~/.openclaw/agents/main/sessions/fb87a1b2-....jsonl -n 20",
)
@click.argument("transcript", metavar="TRANSCRIPT")
@click.option(
    "--audit", metavar="FILE", help="Read this log instead of that of the guard over the transcript."
)
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="The last N records.")
@click.option("--text", "with_text", is_flag=True, help="The words of each record, too. They are in no log.")
@click.option(
    "--format", "format_name", type=click.Choice(get_args(model.Format)), help="Default: the policy's, or pi."
)
@click.option("--json", "as_json", is_flag=True, help="All that is known of each, one JSON object a line.")
def command(
    transcript: str,
    audit: str | None,
    lines: int | None,
    with_text: bool,
    format_name: str | None,
    as_json: bool,
) -> int:
    """Show who wrote each record of TRANSCRIPT: lane, process, time and verdict. Marked are records that the agent no
    longer remembers, forks, and what killed a turn. Archives (.reset.TIME) work, too.

    Exit status 0: all of it is remembered. 1: some is forgotten, or no record. 2: it cannot be told.
    """
    real = os.path.realpath(transcript)
    logs = find(None if audit is not None else os.path.dirname(real) or ".", audit)
    ledger, named = _read_log(logs[0], real)
    fd, size = _open(transcript, ledger)
    try:
        form = FORMATS[format_name] if format_name is not None else _format(named)
        told = _Transcript(fd, size, form, ledger)
        totals = Totals()
        rows = _rows(told, totals)
        last: Iterable[Row] = rows if lines is None else deque(rows, maxlen=lines)
        if with_text:
            last = (row._replace(text=text_of(told.line(row.position))) for row in last)
        if as_json:
            for row in last:
                sys.stdout.write(json.dumps(_facts(row), ensure_ascii=True) + "\n")
        else:
            picture = Picture(with_text)
            for row in last:
                picture.row(row)
            picture.summary(totals, ledger.history(), told.history.leaf)
        sys.stdout.flush()
    finally:
        os.close(fd)
    return 1 if totals.odd else 0


# ---- the log


def _read_log(log: Log, real: str) -> tuple[Ledger, Named | None]:
    """What the log knows of the transcript at *real*, and the policy that was in force last."""
    name = os.path.basename(real)
    mount = log.mount or _mountpoint(log.file)
    below = mount is not None and real.startswith(mount.rstrip("/") + "/")
    ledger = Ledger(name, os.path.relpath(real, mount) if below and mount is not None else None)
    named: Named | None = None
    for line in events(log.file):
        if line.event is not None:
            ledger.take(line.event)
            named = named_by(line.event) or named
    return ledger, named


def _mountpoint(file: str) -> str | None:
    """Where the guard of the log was, if its first events say so."""
    for count, line in enumerate(events(file)):
        found = line.event.get("mountpoint") if line.event is not None else None
        if isinstance(found, str):
            return found
        if count > 100:
            break
    return None


def _format(named: Named | None) -> Format:
    if named is None:
        return PI
    try:
        return FORMATS[load(named.source, trust=False).policy.transcripts.format]
    except PolicyError:
        sys.stderr.write(
            f"guardfs blame: the policy {safe(named.source)} cannot be read any more; taking the format for pi\n"
        )
        return PI


# ---- the transcript


def _open(transcript: str, ledger: Ledger) -> tuple[int, int]:
    """A descriptor, and how many bytes are looked at: what is appended meanwhile is not."""
    try:
        fd = os.open(transcript, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        gone = ledger.gone
        mend = f"the log says: {safe(gone)}" if gone else "give the path of the transcript"
        raise GuardError(f"{transcript}: no such file", mend) from None
    except OSError as error:
        raise GuardError(f"{transcript}: {error.strerror}", "read it as its owner, or as root") from error
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        os.close(fd)
        raise GuardError(f"{transcript}: not a regular file", "give the path of the transcript")
    return fd, facts.st_size


class _Transcript:
    """The records of the open file *fd*, joined with the log. Read twice: what a record is to the history is known
    only when all of them are."""

    def __init__(self, fd: int, size: int, form: Format, ledger: Ledger) -> None:
        self._fd, self._size, self._format, self._ledger = fd, size, form, ledger
        self.history = History(form)
        nobodys = bytearray()
        for position in self.positions():
            written = self.blame(position).written
            who = None if written is None else written.who
            nobodys.append(who is None)
            self.history.add(position.record, None if who is None else who.lane)
        self.forks: dict[int, Fork] = {}
        for fork in self.history.forks():
            unknown = any(nobodys[child] for child in fork.children)
            told = fork._replace(crossed=fork.crossed and not unknown)
            self.forks.update(dict.fromkeys(fork.children, told))

    def positions(self) -> Iterator[Position]:
        return positions(self._chunks(), self._format)

    def blame(self, position: Position) -> Blame:
        return self._ledger.of(position.record, position.offset, position.length)

    def line(self, position: Position) -> bytes:
        """Its bytes; none of a record that is too long to be read whole."""
        return os.pread(self._fd, position.length, position.offset) if position.length <= MAX_LINE else b""

    def _chunks(self) -> Iterator[bytes]:
        at = 0
        while at < self._size:
            data = os.pread(self._fd, min(CHUNK, self._size - at), at)
            if not data:
                return
            at += len(data)
            yield data


def _rows(told: _Transcript, totals: Totals) -> Iterator[Row]:
    first = last = told.history.leaf_index or 0
    for each in told.history.path():
        first, last = min(first, each), max(last, each)
    for number, position in enumerate(told.positions()):
        if number >= len(told.history):
            return
        fork = told.forks.get(number)
        row = Row(
            number,
            position,
            told.history.standing(number),
            told.blame(position),
            fork,
            first <= number <= last,
        )
        totals.add(row)
        yield row


# ---- JSON


def _facts(row: Row) -> dict[str, Any]:
    position, blame = row.position, row.blame
    facts: dict[str, Any] = {
        "number": row.number + 1,
        "offset": position.offset,
        "bytes": position.length,
        "record": msgspec.to_builtins(position.record),
        "whole": position.newline,
        "standing": row.standing.value,
        "known": blame.known,
        "written": _written(blame.written),
    }
    for key, written in (("rewritten", blame.rewritten), ("ended", blame.ended)):
        if written is not None:
            facts[key] = _written(written)
    if row.fork is not None:
        facts["fork"] = {
            "parent": row.fork.parent + 1,
            "children": [child + 1 for child in row.fork.children],
            "crossed": row.fork.crossed,
        }
    if row.text is not None:
        facts["text"] = row.text
    return facts


def _written(written: Written | None) -> dict[str, Any] | None:
    if written is None:
        return None
    facts: dict[str, Any] = {
        "seq": written.seq,
        "time": written.time,
        "op": written.op,
        "by": None if written.who is None else msgspec.to_builtins(written.who),
    }
    for key in ("verdict", "would", "relation"):
        if getattr(written, key):
            facts[key] = getattr(written, key)
    if written.killed:
        facts["killed"] = list(written.killed)
    return facts
