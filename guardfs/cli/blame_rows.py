"""What `guardfs blame` shows of each record, and below them. Pure but for the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from guardfs.audit.blame import Blame, Written
from guardfs.audit.show import DIM, GREEN, RED, YELLOW, safe
from guardfs.cli.clock import day_clock, day_second
from guardfs.cli.table import Cell, Column, Part, Table, terminal
from guardfs.transcript.chain import Fork, Standing
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.positions import Position

_LANES = ("36", "32", "35", "34", "96", "92", "95", "94")
"""Colours of lanes, in the order in which they come; again from the first one where there are more. No red and no
yellow: those say that something is wrong."""

_MARKS = {"kept": "●", "forgotten": "○", "rail": "│", "other": "·", "bad": "✗"}
_PLAIN = {"kept": "*", "forgotten": "o", "rail": "|", "other": ".", "bad": "x"}

WIDE = 130
"""Columns of a terminal on which times have a year and milliseconds."""

WRITERS = 20
"""Lines of the list of writers."""


class Row(NamedTuple):
    """One record. number: from 0. fork: where it is one of several that continue the same record. between: whether
    the path that the agent remembers begins before it, and ends behind it. text: its words, if they are wanted."""

    number: int
    position: Position
    standing: Standing
    blame: Blame
    fork: Fork | None
    between: bool
    text: str | None = None


class Totals:
    """Counts over rows."""

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.standings: Counter[Standing] = Counter()
        self.forks: set[int] = set()
        self.crossed: set[int] = set()
        self.writers: Counter[tuple[str, str]] = Counter()
        self.sizes: Counter[tuple[str, str]] = Counter()
        self.killers = 0
        self._keys: dict[int, tuple[str, str]] = {}  # by the id of a `Who`, all of which the ledger keeps

    def add(self, row: Row) -> None:
        """Counts one."""
        self.records += 1
        self.bytes += row.position.length
        self.standings[row.standing] += 1
        if row.fork is not None:
            self.forks.add(row.fork.parent)
            if row.fork.crossed:
                self.crossed.add(row.fork.parent)
        key = self._key(row.blame)
        self.writers[key] += 1
        self.sizes[key] += row.position.length
        self.killers += row.blame.written is not None and bool(row.blame.written.killed)

    def _key(self, blame: Blame) -> tuple[str, str]:
        """Under what name a record is counted, and the command behind it. Scripts are a new process each time."""
        written = blame.written
        if written is None:
            return ("before the log" if blame.known == "before" else "not in the log"), ""
        who = written.who
        if who is None:
            return "below the mount", ""
        key = self._keys.get(id(who))
        if key is None:
            key = self._keys[id(who)] = (msgspec.structs.replace(who, tid=0, tgid=0).name, who.command)
        return key

    @property
    def odd(self) -> bool:
        """Whether something is wrong with the history."""
        return bool(self.standings[Standing.FORGOTTEN] or self.standings[Standing.INVALID])


class Picture:
    """Prints rows as a table, with the path that the agent remembers on its left."""

    def __init__(self, with_text: bool) -> None:
        colour, width = terminal()
        columns = [Column("", True), Column("#", True), Column("RECORD"), Column("WRITTEN"), Column("BY"),
                   Column("VERDICT"), Column("WHAT"), Column("", second=True)]  # fmt: skip
        if with_text:
            columns[-1:] = [Column("NOTE", second=True), Column("TEXT", second=True)]
        self._when = day_clock if width is None or width >= WIDE else day_second
        self._table = Table(columns, colour=colour, width=width, cut=width is not None)
        self._lanes: dict[str, str] = {}
        self._marks = _MARKS if _can(sys.stdout.encoding, "".join(_MARKS.values())) else _PLAIN

    def row(self, row: Row) -> None:
        """One record."""
        record, written = row.position.record, row.blame.written
        cells: list[Cell] = [
            self._gutter(row),
            Part(str(row.number + 1), DIM),
            Part(safe((record.id or "")[:8])),
            Part(self._when(written.time) if written is not None else "", DIM),
            self._by(row.blame),
            _verdict(written),
            [Part(_what(record)), Part(f", {row.position.length:,} B", DIM)],
            _notes(row),
        ]
        if row.text is not None:
            cells.append(Part(safe(row.text), DIM))
        self._table.row(cells)

    def summary(self, totals: Totals, history: Sequence[tuple[Written, str]], leaf: str | None) -> None:
        """The last lines."""
        line = self._table.line
        if not totals.records:
            line("no record")
            return
        standings = totals.standings
        said = [f"{totals.records:,} records, {totals.bytes:,} bytes"]
        for standing, words in (
            (Standing.FORGOTTEN, "forgotten"),
            (Standing.INVALID, "no record of this format"),
        ):
            if standings[standing]:
                said.append(f"{standings[standing]:,} {words}")
        if totals.forks:
            between = f", {len(totals.crossed)} of them between lanes" if totals.crossed else ""
            said.append(f"{len(totals.forks)} fork{'s' if len(totals.forks) > 1 else ''}{between}")
        if totals.killers:
            said.append(f"{totals.killers} killed a turn")
        if leaf is not None:
            said.append(f"the agent continues from {safe(leaf[:8])}")
        line(f"\n{'; '.join(said)}")
        for (name, command), count in totals.writers.most_common(WRITERS):
            records = "1 record" if count == 1 else f"{count:,} records"
            line(
                f"  {records:>14}, {totals.sizes[name, command]:>11,} bytes  {name}{'  ' if command else ''}{command}"
            )
        if len(totals.writers) > WRITERS:
            line(f"  and {len(totals.writers) - WRITERS} more writers")
        for written, what in history:
            who = written.who.name if written.who is not None else "nobody seen"
            line(f"the file: {safe(what)} by {who} at {day_clock(written.time)} (#{written.seq})")

    # ---- parts

    def _gutter(self, row: Row) -> Cell:
        marks, standing = self._marks, row.standing
        if standing is Standing.KEPT:
            return [Part(marks["kept"], GREEN), Part(" ")]
        rail = Part(marks["rail"] if row.between else " ", GREEN)
        if standing is Standing.FORGOTTEN:
            return [rail, Part(marks["forgotten"], YELLOW)]
        if standing is Standing.INVALID:
            return [rail, Part(marks["bad"], RED)]
        return [rail, Part(marks["other"], DIM)]

    def _by(self, blame: Blame) -> Cell:
        written = blame.written
        if written is None:
            return Part("before the log" if blame.known == "before" else "not in the log", DIM)
        if written.who is None:
            return Part("below the mount", YELLOW)
        if written.killed:
            return Part(written.who.name, "1;31")
        lane = written.who.lane
        return Part(written.who.name, self._lanes.setdefault(lane, _LANES[len(self._lanes) % len(_LANES)]))


def _verdict(written: Written | None) -> Part:
    if written is None or not written.verdict:
        return Part("")
    if written.would:
        return Part(safe(f"would {written.would}"), YELLOW)
    return Part(safe(written.verdict), "" if written.verdict == "allow" else YELLOW)


def _what(record: RecordMeta) -> str:
    if record.invalid:
        return "not a record"
    names = [record.type, record.role, record.model if record.provider == "openclaw" else None]
    return safe("/".join(name for name in names if name) or "record")


def _notes(row: Row) -> Cell:
    """What is odd about a record."""
    blame, notes = row.blame, []
    if blame.written is not None and blame.written.killed:
        which = ", ".join(f"#{seq}" for seq in blame.written.killed)
        notes.append(Part(f"killed a turn ({which})", "1;31"))
    if row.standing is Standing.FORGOTTEN:
        notes.append(Part("forgotten", YELLOW))
    elif row.standing is Standing.REPLACED:
        notes.append(Part("replaced later", YELLOW))
    elif row.standing is Standing.SIDE:
        notes.append(Part("beside the conversation", DIM))
    if row.fork is not None:
        others = [f"#{child + 1}" for child in row.fork.children if child != row.number]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(Part(f"continues #{row.fork.parent + 1} as {', '.join(others[:3])}{more} does", YELLOW))
    if blame.known == "moved":
        notes.append(Part("at another place than the log has it", YELLOW))
    if blame.rewritten is not None:
        notes.append(Part(f"written anew by {_name(blame.rewritten)}", YELLOW))
    if blame.ended is not None:
        notes.append(Part(f"ended by {_name(blame.ended)}", RED))
    if row.position.record.oversize:
        notes.append(Part("only its beginning was read", DIM))
    if not row.position.newline:
        notes.append(Part("without an end", YELLOW))
    parts: list[Part] = []
    for note in notes:
        parts += [Part(", ")] if parts else []
        parts.append(note)
    return parts


def _name(written: Written) -> str:
    return f"{written.who.name if written.who is not None else 'somebody below the mount'} (#{written.seq})"


def _can(encoding: str | None, text: str) -> bool:
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
