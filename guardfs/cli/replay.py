"""`guardfs replay`: what another policy would have said of a log."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import click

from guardfs.audit.facts import EventReader, Outcome, outcome_of
from guardfs.audit.read import events
from guardfs.audit.show import safe
from guardfs.cli.progress import Progress
from guardfs.policy.decide import Decider
from guardfs.policy.files import Files
from guardfs.policy.load import load
from guardfs.policy.users import ids

SHOWN = 20
"""Changes that are shown without --all, the most frequent first."""

MAX_CHANGES = 10_000
"""Changes that are told apart; events of further ones are counted together."""


class _Place(NamedTuple):
    file: str
    seq: int | None
    time: str


class _Change:
    """Events for which before and after are the same."""

    __slots__ = ("count", "first", "last")

    def __init__(self, place: _Place) -> None:
        self.count = 0
        self.first = self.last = place


class _Totals:
    """What a replay has found so far."""

    def __init__(self) -> None:
        self.operations = 0
        self.same = 0
        self.differ = 0
        self.incomplete = 0
        self.changes: dict[tuple[Outcome, Outcome], _Change] = {}
        self.beyond = 0
        self.undecided = 0
        self.undecided_first: tuple[_Place, str] | None = None

    def count(self, before: Outcome, after: Outcome, place: _Place) -> None:
        if before == after:
            self.same += 1
            return
        self.differ += 1
        change = self.changes.get((before, after))
        if change is None:
            if len(self.changes) >= MAX_CHANGES:
                self.beyond += 1
                return
            change = self.changes[before, after] = _Change(place)
        change.count += 1
        change.last = place

    def cannot(self, place: _Place, reason: str) -> None:
        self.undecided += 1
        self.undecided_first = self.undecided_first or (place, reason)

    def by_count(self) -> list[tuple[Outcome, Outcome, _Change]]:
        found = [(before, after, change) for (before, after), change in self.changes.items()]
        return sorted(found, key=lambda each: -each[2].count)


@click.command(
    name="replay",
    epilog="Example:  guardfs replay /var/log/guardfs/audit.jsonl --policy ./my-policy.toml",
)
@click.argument("audits", metavar="AUDIT...", nargs=-1, required=True)
@click.option("--policy", metavar="NAME|FILE", required=True, help="Decide by this policy.")
@click.option(
    "--all", "everything", is_flag=True, help=f"All differences, not only the {SHOWN} most frequent."
)
@click.option("--json", "as_json", is_flag=True, help="The differences as JSON.")
def command(audits: tuple[str, ...], policy: str, everything: bool, as_json: bool) -> int:
    """Decide all that stands in a log anew, by another policy, and show what differs.

    AUDIT: a log as the guard writes it, with its rotated files. Ends with 0 if nothing differs, 1 if something does or
    could not be decided, 2 if it cannot be done.
    """
    loaded = load(policy, trust=False)
    decider = Decider(loaded.policy, ids)
    totals = _Totals()
    progress = Progress(audits)
    for audit in audits:
        _replay(audit, decider, Files(loaded.policy.transcripts), totals, progress)
    progress.end()
    if as_json:
        sys.stdout.write(json.dumps(_json(totals, loaded.source, everything), indent=2) + "\n")
    else:
        _print(totals, loaded.source, everything)
    return 1 if totals.differ or totals.undecided else 0


def _replay(audit: str, decider: Decider, files: Files, totals: _Totals, progress: Progress) -> None:
    reader = EventReader(files)
    for line in events(audit):
        progress.step(len(line.raw) + 1)
        event = line.event
        if event is None:
            totals.cannot(_Place(line.where, None, ""), "not an event of a log")
            continue
        seq = event.get("seq")
        place = _Place(line.where, seq if isinstance(seq, int) else None, str(event.get("time", "")))
        try:
            facts = reader.read(event)
        except ValueError as error:
            totals.operations += 1
            totals.cannot(place, str(error))
            continue
        if facts is None:
            continue
        totals.operations += 1
        totals.incomplete += reader.incomplete
        decision = decider.decide(facts)
        totals.count(outcome_of(event), Outcome(decision.lane, decision.rule, decision.verdict), place)


def _print(totals: _Totals, source: str, everything: bool) -> None:
    out: list[str] = []
    changes = totals.by_count()
    for before, after, change in changes if everything else changes[:SHOWN]:
        times = "once" if change.count == 1 else f"{change.count:,} times"
        first, last = change.first, change.last
        when = f"seq {first.seq} at {first.time}"
        if change.count > 1:
            when += f", last seq {last.seq} at {last.time}"
        out.append(f"{times}, first {when}" if change.count > 1 else f"{times}: {when}")
        out.append(f"  before  {_text(before)}")
        out.append(f"  now     {_text(after)}")
    if not everything and len(changes) > SHOWN:
        out.append(f"and {len(changes) - SHOWN:,} differences more; --all shows them")
    if totals.beyond:
        out.append(f"and {totals.beyond:,} events of further differences")
    if totals.undecided_first is not None:
        place, reason = totals.undecided_first
        out.append(f"could not be decided: {totals.undecided:,} lines; the first: {place.file}: {reason}")
    if totals.incomplete:
        out.append(f"decided without the arguments and parents of the process: {totals.incomplete:,}")
    out.append(
        f"{source}: {totals.operations:,} operations, {totals.same:,} as before, {totals.differ:,} otherwise"
    )
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(map(safe, out)) + "\n"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _text(outcome: Outcome) -> str:
    return f"{outcome.verdict:<6} {outcome.lane}: {outcome.rule}"


def _json(totals: _Totals, source: str, everything: bool) -> dict[str, Any]:
    changes = totals.by_count()
    undecided: dict[str, Any] = {"count": totals.undecided}
    if totals.undecided_first is not None:
        undecided["first"] = {**totals.undecided_first[0]._asdict(), "reason": totals.undecided_first[1]}
    return {
        "policy": source,
        "operations": totals.operations,
        "same": totals.same,
        "differ": totals.differ,
        "incomplete": totals.incomplete,
        "undecided": undecided,
        "changes": [
            {
                "count": change.count,
                "before": before._asdict(),
                "after": after._asdict(),
                "first": change.first._asdict(),
                "last": change.last._asdict(),
            }
            for before, after, change in (changes if everything else changes[:SHOWN])
        ],
        "changes_total": len(changes),
        "beyond": totals.beyond,
    }
