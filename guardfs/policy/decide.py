"""A policy, compiled: facts -> lane, rule, verdict. Pure.

Called for every operation that is logged, while its caller waits or soon after. So each part of the facts is looked up
in a table of what it was found to meet before (`conditions.py`), and their AND in a table of decisions. All tables are
bounded, and emptied when they are full: whoever makes many names costs everybody some microseconds, and no memory.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from guardfs.lanes.writer import Writer
from guardfs.policy.claims import Claims, Fallback
from guardfs.policy.conditions import RECORD, WRITER, Asked, Dimensions, ResolveId, readable
from guardfs.policy.facts import Decision, Facts, id_form
from guardfs.policy.model import Chain, FenceRelation, FileClass, Lane, LockRelation, OperationClass, Policy

WRITERS = 1024
PATHS = 4096
NAMES = 1024
DECISIONS = 8192
"""Entries of the tables."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Key4 = tuple[int, int, int, int]
_Record = tuple[str | None, str | None, str | None, str | None, str | None]
_Enums = tuple[OperationClass, FileClass, FenceRelation, LockRelation, Chain | None]


class Entry(msgspec.Struct, frozen=True, eq=False):
    """One lane or rule, compiled. name: of a lane the whole name. bit: its place; unless: None if there is none."""

    name: str
    bit: int
    asked: tuple[Asked, ...]
    unless: tuple[Asked, ...] | None


class _Known(msgspec.Struct, frozen=True, eq=False):
    """met: what the writer meets, claims apart; with_claim: with what it claims by its environment. label: the fallback
    as a key."""

    met: int
    claim: int
    with_claim: int
    fallback: Fallback
    label: str


class _Memo(dict[_Key, _Value], Generic[_Key, _Value]):
    """Values that were made before; at most *limit*."""

    def __init__(self, make: Callable[[_Key], _Value], limit: int) -> None:
        self._make = make
        self._limit = limit

    def __missing__(self, key: _Key) -> _Value:
        if len(self) >= self._limit:
            self.clear()
        value = self[key] = self._make(key)
        return value


class Decider:
    """One policy. Not thread-safe; making one takes about a millisecond for 100 rules.

    ids: the number of a user or group by its name, asked now and never again; a name that has none is nobody's.

    A writer that no lane matches is called as `guardfs.policy.claims` says.

    lane_names: whole names, in the order of the file. rules: names, in order.
    """

    def __init__(self, policy: Policy, ids: ResolveId) -> None:
        self.policy = policy
        self.dimensions = dimensions = Dimensions(ids)
        self.lanes: dict[str, list[Entry]] = {}  # by the whole name of the lane around them; "": outermost
        self.rule_entries: list[Entry] = []
        self.half = len(policy.lanes) + len(policy.rules)  # an `unless` has the bit so far above
        bit = 0
        for lane in policy.lanes:
            within = lane.within or ""
            name = f"{within}:{lane.name}" if within else lane.name
            self.lanes.setdefault(within, []).append(self._entry(name, bit, lane, lane))
            bit += 1
        for rule in policy.rules:
            self.rule_entries.append(self._entry(rule.name, bit, rule.when, rule))
            bit += 1
        dimensions.freeze()
        self.lane_names = [
            f"{lane.within}:{lane.name}" if lane.within else lane.name for lane in policy.lanes
        ]
        self.rules = [rule.name for rule in policy.rules]
        self._beliefs = Claims(policy)
        self._entries = {entry.bit: entry for entries in self.lanes.values() for entry in entries}
        self._groups = {name: sum(1 << e.bit for e in entries) for name, entries in self.lanes.items()}
        self._rule_bits = sum(1 << entry.bit for entry in self.rule_entries)
        self._tables()

    def _entry(self, name: str, bit: int, when: object, table: Lane | object) -> Entry:
        unless = getattr(table, "unless", None)
        return Entry(
            name,
            bit,
            self.dimensions.add(bit, when),  # type: ignore[arg-type]
            None if unless is None else self.dimensions.add(bit + self.half, unless),
        )

    def _tables(self) -> None:
        met, asking = self.dimensions.met, self.dimensions.asking

        def texts(key: str) -> Callable[[bytes], int]:
            return lambda name: met(key, (name.decode("utf-8", "surrogateescape"),))

        def values(key: str) -> Callable[[str | None], int]:
            return lambda value: met(key, () if value is None else (value,))

        self._all = self.dimensions.all
        self._writers = _Memo(self._know, WRITERS)
        self._asks_path = "path" in asking
        self._paths = _Memo(texts("path"), PATHS)
        self._asks_to = "to" in asking
        self._tos = _Memo(texts("to"), NAMES)
        self._no_to = met("to", ())
        self._enums = _Memo(self._enumerations, DECISIONS)
        self._asks_record = any(key.startswith("record") for key in asking)
        self._no_record = self.dimensions.all
        for key in ("record", *RECORD):
            self._no_record &= met(key, ())
        self._asks_id = "record.id" in asking
        self._records = _Memo(self._read, NAMES)
        self._forms, self._types, self._roles, self._providers, self._models = (
            _Memo(values(f"record.{name}"), NAMES) for name in ("id", "type", "role", "provider", "model")
        )
        self._claims = _Memo(self._claimed, NAMES)
        self._lane_masks: _Memo[str, int] = _Memo(lambda lane: met("lane", (lane,)), NAMES)
        self._decided: dict[_Key4, Decision] = {}
        self._undeclared: dict[tuple[_Key4, str], Decision] = {}
        self._interned = _Memo(self._make, DECISIONS)

    # ---- deciding

    def decide(self, facts: Facts) -> Decision:
        """What the policy says of *facts*; the same object for the same outcome, unless thousands came between.
        Never raises."""
        known = self._writers[facts.writer]
        record = facts.record
        if record is None or record.invalid or record.part:
            state = self._enums[facts.operation, facts.file, facts.fence, facts.lock, None]
            written = self._no_record
        else:
            state = self._enums[facts.operation, facts.file, facts.fence, facts.lock, facts.continues]
            written = self._all
            if self._asks_record:
                form = None
                if self._asks_id and (record.id is not None or not record.oversize):
                    form = id_form(record.id)
                written = self._records[record.type, record.role, form, record.provider, record.model]
        path = self._paths[facts.path] if self._asks_path else self._all
        if self._asks_to:
            path &= self._no_to if facts.to is None else self._tos[facts.to]
        if facts.claim is not None:
            return self._with_attribute(state & written & path, known, facts.claim)
        key = (state, written, path, known.with_claim)
        decision = self._decided.get(key)
        if decision is not None:
            return decision
        decision = self._undeclared.get((key, known.label))
        return self._resolve(key, known) if decision is None else decision

    def _with_attribute(self, met: int, known: _Known, claim: str) -> Decision:
        mask, fallback = self._claims[claim]
        met &= known.met & (known.claim | mask)
        lane, evidence, _ = self._lane(met, fallback or known.fallback, mask)
        return self._ruled(met, lane, evidence)

    def _resolve(self, key: _Key4, known: _Known) -> Decision:
        state, written, path, writer = key
        met = state & written & path & writer
        lane, evidence, declared = self._lane(met, known.fallback, 0)
        decision = self._ruled(met, lane, evidence)
        if len(self._decided) + len(self._undeclared) >= DECISIONS:
            self._decided.clear()
            self._undeclared.clear()
        if declared:
            self._decided[key] = decision
        else:
            self._undeclared[key, known.label] = decision
        return decision

    def _lane(self, met: int, fallback: Fallback, attribute: int) -> tuple[str, tuple[str, ...], bool]:
        """The lane, its evidence, and whether the policy declares it. attribute: what meets it by the claim of the
        attribute."""
        met &= ~(met >> self.half)
        name, evidence = "", []
        while found := met & self._groups.get(name, 0):
            entry = self._entries[(found & -found).bit_length() - 1]
            name = entry.name
            for asked in entry.asked:
                key = asked.key
                if key == "claim":
                    key = "claim.attribute" if attribute >> entry.bit & 1 else "claim.environment"
                if key not in evidence:
                    evidence.append(key)
        if name:
            return name, tuple(evidence), True
        return fallback.lane, (fallback.evidence,), False

    def _ruled(self, met: int, lane: str, evidence: tuple[str, ...]) -> Decision:
        met &= self._lane_masks[lane]
        found = met & ~(met >> self.half) & self._rule_bits
        index = (found & -found).bit_length() - 1 - len(self.policy.lanes) if found else len(self.rules)
        return self.outcome(lane, evidence, index)

    def _make(self, outcome: tuple[str, tuple[str, ...], int]) -> Decision:
        lane, evidence, index = outcome
        if index >= len(
            self.policy.rules
        ):  # no policy that was checked comes here: its last rule has no conditions
            return Decision(lane, evidence, "(none)", index, "allow")
        rule = self.policy.rules[index]
        number = getattr(errno, rule.errno or "EACCES", errno.EACCES) if rule.verdict == "deny" else 0
        on_timeout = rule.on_timeout or self.policy.fence.on_timeout
        return Decision(lane, evidence, rule.name, index, rule.verdict, number, on_timeout)

    # ---- what the parts of the facts meet

    def _know(self, writer: Writer) -> _Known:
        met = self.dimensions.all
        for key, values in WRITER.items():
            met &= self.dimensions.met(key, values(writer))
        claim = self.dimensions.met("claim", self.claims(writer, None))
        fallback = self._beliefs.fallback(writer)
        return _Known(met, claim, met & claim, fallback, f"{fallback.evidence}:{fallback.lane}")

    def claims(self, writer: Writer, attribute: str | None) -> tuple[str, ...]:
        """What is claimed and believed: by the attribute, then by the environment."""
        return self._beliefs.of(writer, attribute)

    def attribute(self, claim: str | None) -> int:
        """The conjunctions whose condition on claims *claim* meets, made by the attribute."""
        return 0 if claim is None else self._claims[claim][0]

    def fallback(self, writer: Writer, attribute: str | None) -> Fallback:
        """The lane of *writer* where no lane of the policy matches. attribute: what it claims by it."""
        return self._beliefs.lane("attribute", attribute) or self._beliefs.fallback(writer)

    def _claimed(self, claim: str) -> tuple[int, Fallback | None]:
        if not self._beliefs.believed("attribute", claim):
            return 0, None
        mask = self.dimensions.met("claim", (claim,)) & self.dimensions.asking.get("claim", 0)
        return mask, self._beliefs.lane("attribute", claim)

    def _enumerations(self, key: _Enums) -> int:
        met = self.dimensions.met
        operation, file, fence, lock, continues = key
        mask = met("operation", (operation,)) & met("file", (file,)) & met("fence", (fence,))
        return (
            mask & met("lock", (lock,)) & met("record.continues", () if continues is None else (continues,))
        )

    def _read(self, key: _Record) -> int:
        kind, role, form, provider, model = key
        met = self._forms[form] & self._types[kind] & self._roles[role]
        return met & self._providers[provider] & self._models[model]

    # ---- for `explain`

    def outcome(self, lane: str, evidence: tuple[str, ...], index: int) -> Decision:
        """The decision of rule *index*; beyond the last one: that no rule matched."""
        return self._interned[lane, evidence, index]

    def values(self, facts: Facts) -> dict[str, tuple[str | int | bool, ...]]:
        """What is known of each key that conditions ask about; nothing: unknown."""
        record = facts.record
        known: dict[str, tuple[str | int | bool, ...]] = {
            key: values(facts.writer) for key, values in WRITER.items()
        }
        known["operation"] = (facts.operation,)
        known["file"] = (facts.file,)
        known["path"] = (facts.path.decode("utf-8", "surrogateescape"),)
        known["to"] = () if facts.to is None else (facts.to.decode("utf-8", "surrogateescape"),)
        known["record"] = (True,) if readable(record) else ()
        for key, read in RECORD.items():
            known[key] = read(record) if record is not None and readable(record) else ()
        known["record.continues"] = (facts.continues,) if readable(record) and facts.continues else ()
        known["lock"] = (facts.lock,)
        known["claim"] = self.claims(facts.writer, facts.claim)
        known["fence"] = (facts.fence,)
        return known
