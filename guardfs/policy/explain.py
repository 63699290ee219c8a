"""Why a policy says what it says of an operation: every lane and rule that was tried, and what each asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from guardfs.audit.text import clean
from guardfs.policy.conditions import Asked, readable
from guardfs.policy.decide import Decider, Entry
from guardfs.policy.facts import Facts
from guardfs.policy.model import Verdict

Value = str | int | bool

_SHOWN = 4
"""Values of one condition that `Condition.text` shows."""

_LONG = 120
"""Characters of each."""


class Condition(msgspec.Struct, frozen=True):
    """One condition.

    found: what the operation has there, of which one value that matches is enough; bytes that are no text stand as
    ``\\xNN``. Empty: unknown, or there is none, and `note` says why.
    """

    key: str
    asked: tuple[Value, ...]
    found: tuple[Value, ...]
    held: bool
    note: str = ""

    def text(self) -> str:
        """``process.exe: asked */node, found /usr/bin/python3.11``; shortened."""
        return f"{self.key}: asked {_some(self.asked)}, found {self.found_text()}"

    def found_text(self) -> str:
        """What was found, or why there is nothing; shortened."""
        found = _some(self.found) or "nothing"
        if self.note:
            return f"{found} ({self.note})" if self.found else self.note
        return found


class Trial(msgspec.Struct, frozen=True):
    """One lane or rule that was tried. name: of a lane the whole name. unless: None where there is none."""

    name: str
    matched: bool
    conditions: tuple[Condition, ...]
    unless: tuple[Condition, ...] | None = None

    def decisive(self) -> str:
        """The first thing that kept it from matching; or, if it matched, what was found for all that it asked."""
        for condition in self.conditions:
            if not condition.held:
                return condition.text()
        if not self.matched:
            return f"unless {'; '.join(condition.text() for condition in self.unless or ()) or 'nothing is asked'}"
        return (
            "; ".join(f"{condition.key}: {condition.found_text()}" for condition in self.conditions)
            or "asks nothing"
        )


class Explanation(msgspec.Struct, frozen=True):
    """A decision, with all that was tried on the way to it, in order: lanes from the outermost in, then rules.

    fallback: where the lane is from if none matched: ``label``, ``claim.attribute``, ``claim.environment``; else "".
    """

    lanes: tuple[Trial, ...]
    lane: str
    evidence: tuple[str, ...]
    fallback: str
    rules: tuple[Trial, ...]
    rule: str
    verdict: Verdict
    errno: int
    on_timeout: Verdict


def explain(decider: Decider, facts: Facts) -> Explanation:
    """The decision on *facts*, by the same tables as `Decider.decide`, one condition after the other."""
    tracer = _Tracer(decider, facts)
    lanes: list[Trial] = []
    lane, evidence = "", []
    while True:
        for entry in decider.lanes.get(lane, ()):
            trial = tracer.trial(entry)
            lanes.append(trial)
            if trial.matched:
                evidence += [key for key in tracer.evidence(entry) if key not in evidence]
                lane = entry.name
                break
        else:
            break
    fallback = None if lane else decider.fallback(facts.writer, facts.claim)
    if fallback is not None:
        lane, evidence = fallback.lane, [fallback.evidence]
    tracer.name(lane)
    rules: list[Trial] = []
    for entry in decider.rule_entries:
        rules.append(tracer.trial(entry))
        if rules[-1].matched:
            break
    index = len(rules) - 1 if rules and rules[-1].matched else len(decider.rules)
    decision = decider.outcome(lane, tuple(evidence), index)
    return Explanation(
        lanes=tuple(lanes),
        lane=decision.lane,
        evidence=decision.evidence,
        fallback=fallback.evidence if fallback is not None else "",
        rules=tuple(rules),
        rule=decision.rule,
        verdict=decision.verdict,
        errno=decision.errno,
        on_timeout=decision.on_timeout,
    )


class _Tracer:
    def __init__(self, decider: Decider, facts: Facts) -> None:
        self._decider = decider
        self._facts = facts
        self._values: dict[str, tuple[Value, ...]] = dict(decider.values(facts))
        self._met = {key: decider.dimensions.met(key, values) for key, values in self._values.items()}
        self._notes = _notes(facts, self._values)
        self._attribute = decider.attribute(facts.claim)

    def name(self, lane: str) -> None:
        """The lane is known now."""
        self._values["lane"] = (lane,)
        self._met["lane"] = self._decider.dimensions.met("lane", (lane,))

    def trial(self, entry: Entry) -> Trial:
        conditions = self._conditions(entry.asked, entry.bit)
        unless = None
        if entry.unless is not None:
            unless = self._conditions(entry.unless, entry.bit + self._decider.half)
        matched = all(each.held for each in conditions)
        if unless is not None and all(each.held for each in unless):
            matched = False
        return Trial(entry.name, matched, conditions, unless)

    def _conditions(self, asked: tuple[Asked, ...], bit: int) -> tuple[Condition, ...]:
        found = []
        for each in asked:
            held = bool(self._met[each.key] >> bit & 1)
            values = tuple(
                clean(value) if isinstance(value, str) else value for value in self._values[each.key]
            )
            found.append(Condition(each.key, each.values, values, held, self._note(each, held)))
        return tuple(found)

    def _note(self, asked: Asked, held: bool) -> str:
        nobody = self._decider.dimensions.unresolved.get(asked.key, set()).intersection(
            map(str, asked.values)
        )
        if nobody and not held:
            return f"this machine knows no {', '.join(sorted(nobody))}"
        return self._notes.get(asked.key, "")

    def evidence(self, entry: Entry) -> list[str]:
        """The keys of what *entry* asks; of a claim, by what it was made."""
        by = "attribute" if self._attribute >> entry.bit & 1 else "environment"
        return [f"claim.{by}" if asked.key == "claim" else asked.key for asked in entry.asked]


def _notes(facts: Facts, values: Mapping[str, tuple[Value, ...]]) -> dict[str, str]:
    """Why nothing is found where nothing is, and what else a reader should know."""
    writer, record = facts.writer, facts.record
    notes: dict[str, str] = {}
    unknown = _WHY.get(writer.known, "unknown")
    written = (
        "no record is written"
        if record is None
        else "what is written is no record"
        if record.invalid
        else "only a part of a record is written"
    )
    for key, found in values.items():
        if found:
            continue
        if key.startswith("process."):
            notes[key] = "no parents" if key == "process.ancestor" and writer.process is not None else unknown
        elif key.startswith("record") and not readable(record):
            notes[key] = written
        elif key.startswith("record"):
            notes[key] = "unknown" if key == "record.continues" else "a record without it"
        elif key == "to":
            notes[key] = "no new name"
    environment = writer.process.environ_lane if writer.process is not None else None
    claims = (("user.guardfs.lane", facts.claim), ("GUARDFS_LANE", environment))
    disbelieved = [
        f"{by}={text} is not believed"
        for by, text in claims
        if text is not None and text not in values["claim"]
    ]
    if disbelieved:
        notes["claim"] = ", ".join(disbelieved)
    elif not values["claim"]:
        notes["claim"] = "no claim"
    return notes


_WHY = {
    "ok": "unknown",
    "exited": "unknown: the caller was gone",
    "kernel": "unknown: a kernel thread",
    "outside": "unknown: outside the guard's pid namespace",
    "hidden": "unknown: the guard may not look at it",
}


def _some(values: tuple[Value, ...]) -> str:
    shown = " or ".join(_text(value) for value in values[:_SHOWN])
    return f"{shown} or {len(values) - _SHOWN} more" if len(values) > _SHOWN else shown


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) and value else repr(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
