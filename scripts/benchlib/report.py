"""What is told: a table for the terminal, JSON, and docs/performance.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass
class Figures:
    """All figures of one target on one kind of storage. Lists hold one value a round.

    replay: us an operation by placement; replay_by_kind: ``apart``, by kind of operation; append1, append8:
    us of every
    write with one
    and eight writers; lock: us of every lock cycle; listing, looking: ms for 10,000 files; rss: MB or None.
    """

    replay: dict[str, list[float]] = field(default_factory=dict)
    replay_by_kind: dict[str, list[float]] = field(default_factory=dict)
    append1: list[float] = field(default_factory=list)
    append8: list[float] = field(default_factory=list)
    lock: list[float] = field(default_factory=list)
    listing: list[float] = field(default_factory=list)
    looking: list[float] = field(default_factory=list)
    rss: float | None = None


def percentile(values: list[float], share: float) -> float:
    """The value below which *share* of *values* lie, nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(figures: Figures, reference: Figures | None) -> dict[str, Any]:
    """Medians; *ratio_PLACEMENT*: of the ratios of this replay to *reference*'s in the same round."""
    row: dict[str, Any] = {}
    for placement, mine in figures.replay.items():
        row[f"replay_{placement}_us"] = round(median(mine), 2)
        if reference is not None:
            pairs = zip(mine, reference.replay[placement], strict=True)
            row[f"ratio_{placement}"] = round(median(one / other for one, other in pairs), 3)
    for name, values in (("append1", figures.append1), ("append8", figures.append8)):
        row[f"{name}_p50_us"] = round(percentile(values, 0.50), 1)
        row[f"{name}_p99_us"] = round(percentile(values, 0.99), 1)
    row["lock_cycle_us"] = round(median(figures.lock), 1)
    row["list_first_ms"], row["list_ms"] = _first_and_rest(figures.listing)
    row["look_first_ms"], row["look_ms"] = _first_and_rest(figures.looking)
    row["rss_mb"] = None if figures.rss is None else round(figures.rss, 1)
    row["by_kind_us"] = {kind: round(median(us), 2) for kind, us in sorted(figures.replay_by_kind.items())}
    return row


def _first_and_rest(values: list[float]) -> tuple[float, float]:
    return round(values[0], 1), round(median(values[1:] or values), 1)


@dataclass
class Sitting:
    """One run of the bench. rows: by storage, then by target, the `summary`."""

    version: str
    rounds: int
    load: float
    rows: dict[str, dict[str, dict[str, Any]]]
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())
    kernel: str = field(default_factory=platform.release)
    cores: int = field(default_factory=lambda: os.cpu_count() or 0)
    python: str = field(default_factory=platform.python_version)
    counts: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return asdict(self)


REPLAY = (
    ("apart, us/op", "replay_apart_us"),
    ("to bindfs", "ratio_apart"),
    ("together", "replay_together_us"),
    ("to bindfs", "ratio_together"),
    ("free", "replay_free_us"),
    ("to bindfs", "ratio_free"),
)
OTHERS = (
    ("append p50", "append1_p50_us"),
    ("p99", "append1_p99_us"),
    ("8 writers p50", "append8_p50_us"),
    ("p99", "append8_p99_us"),
    ("lock cycle", "lock_cycle_us"),
    ("list 10,000: first, ms", "list_first_ms"),
    ("again", "list_ms"),
    ("stat them: first, ms", "look_first_ms"),
    ("again", "look_ms"),
    ("RSS, MB", "rss_mb"),
)


def tables(sitting: Sitting) -> str:
    """Markdown tables of one sitting, padded so that they can be read in a terminal too."""
    parts = []
    for storage, rows in sitting.rows.items():
        for what, columns in ((f"{storage}: replay", REPLAY), (storage, OTHERS)):
            body = [[name, *(_cell(row.get(key)) for _, key in columns)] for name, row in rows.items()]
            parts.append(_table([what, *(title for title, _ in columns)], body))
        kinds = sorted(sitting.counts)
        head = [f"{storage}: replay apart, us by kind", *rows]
        body = [
            [
                f"{kind} ({sitting.counts[kind]})",
                *(_cell(row["by_kind_us"].get(kind)) for row in rows.values()),
            ]
            for kind in kinds
        ]
        parts.append(_table(head, body))
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[n]) for line in [head, *rows]) for n in range(len(head))]

    def line(cells: list[str]) -> str:
        first, *rest = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


RELEASES = (
    "version", "date", "kernel", "cores", "guardfs", "bindfs", "LoggedFS", "plain", "guardfs / bindfs",
    "append p50 / p99", "8 writers p50 / p99", "lock cycle", "RSS, MB",
)  # fmt: skip

PAGE = """# Performance

Written by `scripts/bench --write`; not a test, no limit is asserted. Figures of different rows come from
different days and perhaps machines: compare within a row. Times are microseconds, the smaller the better.

## Releases

Replay (median microseconds an operation, files on tmpfs, *apart*) of guardfs with the audit log on, of
bindfs, of LoggedFS logging every operation and of a plain directory, in one sitting; then guardfs alone:
append of one record with one writer and with eight, one lock-file cycle, resident memory of all its processes.

{releases}

## Last sitting

guardfs {version}, {date}, Linux {kernel}, {cores} cores, Python {python}; {rounds} rounds;
load average at the start {load:.2f}.

{tables}

## How it is measured

* One sitting, interleaved: in every round each target is measured once, one after the other, so that a
  machine that slows down slows all of them. Figures are medians over the rounds; *to bindfs* is the median of
  the ratios within the rounds. The first round after a mount warms up and is thrown away.
* *Storage*: `tmpfs` has the files in memory, so that only the file systems differ; `disk` has them where
  `--disk` says (`$TMPDIR`). Audit logs, LoggedFS's log and guardfs's state are on the disk in both cases.
* *Replay*: `tests/traces/two-turns.jsonl`, two turns of a real gateway, 1,091 operations without the pauses
  between them.
* *Apart*: the bench and the daemon run on different processors, so every request has to wake a sleeping one.
  That is how a gateway meets a guard, and most of a lean daemon's figure is the waking. *Together*: both on one
  processor; what is left is the work. *Free*: as the scheduler places them, which may be either for a whole
  run: on a two-core virtual machine bindfs alone gave 6 and 58 us in turn. What waking costs differs from host to host:
  bindfs *apart* was 12.5 us on one and 29.5 on another, and guardfs 3.8 times that, or as much
  ([decision 18](decisions/0018-where-waking-is-cheap-c-is-faster.md)). All other figures are *apart*, those
  with eight writers *free*.
* *Append*: each writer is a process that appends 430-byte records to a transcript of its own through one
  descriptor (O_APPEND); the time is that of the write call, percentiles are over all writes of all rounds.
* *Lock cycle*: create O_EXCL, write 84 bytes, fstat, close, lstat, open, fstat, read, close, lstat, lstat,
  unlink.
* *10,000 files*: small transcripts, put there before the mount; *first* is the first listing (and first stat
  of each name) after the mount, *again* the median of those that follow.
* *RSS*: of the daemon and its child processes, the most seen after a round or after the 10,000 files.
  Everything is mounted anew after five rounds, because LoggedFS grows by some 300 MB a round.
* bindfs and mergerfs run with `allow_other` and their own defaults. guardfs runs with the Python that is named above:
  with Debian's (as in the image) it took a tenth less work than with one that was built as a shared library.
"""


def write_page(page: Path, sitting: Sitting) -> None:
    """Write or update *page*: this version's row is replaced or put on top, older rows stay as they are."""
    rows = sitting.rows["tmpfs"]
    mine = rows["guardfs"]
    cells = [
        sitting.version,
        sitting.date,
        sitting.kernel,
        str(sitting.cores),
        *(_cell(rows[name]["replay_apart_us"]) for name in ("guardfs", "bindfs", "loggedfs", "plain")),
        _cell(mine["ratio_apart"]),
        f"{mine['append1_p50_us']:g} / {mine['append1_p99_us']:g}",
        f"{mine['append8_p50_us']:g} / {mine['append8_p99_us']:g}",
        _cell(mine["lock_cycle_us"]),
        _cell(mine["rss_mb"]),
    ]
    older = [row for row in _release_rows(page) if row[0] != sitting.version]
    facts = sitting.as_json() | {
        "releases": _table(list(RELEASES), [cells, *older]),
        "tables": tables(sitting),
    }
    page.write_text(PAGE.format_map(facts))


def _release_rows(page: Path) -> list[list[str]]:
    """The cells of the release table that *page* has now; none where there is no page."""
    text = page.read_text() if page.exists() else ""
    found = re.search(r"^## Releases\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [line for line in found[1].splitlines() if line.startswith("|")] if found else []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return [row for row in rows if len(row) == len(RELEASES)]
