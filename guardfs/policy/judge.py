"""The policy in force, and what it asks about that only the past tells: fences, locks, claims. Pure.

One for each mount. The mount says what was done (`Happening`) and by whom; `judge` says what that is called, which rule
decides on it, and what became of the transcript's fences.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from guardfs.audit.event import FenceMark, Kind
from guardfs.fence.effects import NONE, Effect, FenceClosed, Outcome
from guardfs.fence.events import Actor, Event, ProcessKey, process_exit, tick
from guardfs.fence.events import Kind as Happened
from guardfs.fence.feed import Feed, Happening, Step
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.lockfile import LockHolder
from guardfs.fence.machine import Machine
from guardfs.fence.relation import Standing
from guardfs.lanes.writer import Writer
from guardfs.policy.decide import Decider
from guardfs.policy.facts import Decision, Facts, operation_class
from guardfs.policy.model import FenceRelation, FileClass, LockRelation, OperationClass, seconds
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.names import NameRules

CLAIM = b"user.guardfs.lane"
"""The extended attribute by which a writer claims a lane. The guard keeps it: writing it below would change the file's
ctime, which the agent takes for another's write."""

MAX_CLAIM = 200
"""Characters of a claim; a lane's name has at most 64."""

OFF = "guardfs mode off"
"""What stands in place of a rule while nothing is decided."""

_CLAIMS = 4096
_PASSED = 1024
_FILES: dict[Kind, FileClass] = {Kind.OTHER: "other", Kind.TRANSCRIPT: "transcript", Kind.LOCK: "lock"}


class Judgement(NamedTuple):
    """A decision, those of its facts that the log has not got elsewhere, and what happened to fences."""

    decision: Decision
    fence: FenceMark | None = None
    lock: LockRelation = "free"
    claim: str | None = None
    effects: tuple[Effect, ...] = ()


class Ruling(NamedTuple):
    """What the policy says of an operation that is still to be done. mark: the fence that is open, or about to, None if
    there is none."""

    decision: Decision
    relation: FenceRelation
    continues: bool
    standing: Standing
    lock: LockRelation
    process: ProcessKey
    mark: FenceMark | None = None


class Judge:
    """Decides by the policy in force; `use` puts another one in its place, between two operations.

    token_floor: no fencing token up to this one is given again. enforces: what it says is done. off: it says nothing,
    everything passes. claims_changed: given all claims after each change. Not thread-safe.
    """

    def __init__(self, decider: Decider, names: NameRules, token_floor: int = 0) -> None:
        self._claims: OrderedDict[tuple[int, int, bytes], str] = OrderedDict()
        self.claims_changed: Callable[[bytes], None] = lambda data: None
        self.enforces = self.off = False
        self._began: dict[bytes, dict[int, bool]] = {}  # by token: what held when the fence was opened
        self._passed: dict[Decision, Decision] = {}
        fence = decider.policy.fence
        self.machine = Machine(
            protocol=fence.protocol, idle_timeout_ns=int(seconds(fence.idle_timeout) * 1e9)
        )
        self.machine.restore({}, token_floor)
        self._feed = Feed(names, self.machine.watches)
        self.use(decider, names)

    def use(self, decider: Decider, names: NameRules) -> None:
        """From now on decide by *decider*; *names* are those of the same policy. Open fences stay. The fence protocol
        is that of the first policy (`unchangeable`)."""
        self.decider = decider
        self.denies = any(rule.verdict == "deny" for rule in decider.policy.rules)
        self._feed.use(names)
        self.registry = decider.policy.transcripts.registry.encode("utf-8", "surrogateescape")
        self.idle_timeout = seconds(decider.policy.fence.idle_timeout)
        self.linger_ns = int(seconds(decider.policy.fence.linger) * 1e9)
        self.machine.set_idle_timeout(int(self.idle_timeout * 1e9))
        self.hits = [0] * (
            len(decider.policy.rules) + 1
        )  # the last: no rule, which a checked policy never comes to

    def switch(self, *, enforces: bool, off: bool = False) -> None:
        """From now on what it says is done, or not; off: nor is anything said. A fence that is open ends as it began,
        unless it is switched off."""
        if off:
            self._began.clear()
        elif enforces != self.enforces:
            for view in self.machine.fences(0):
                facts = view.fence
                self._began.setdefault(facts.transcript, {}).setdefault(facts.token, self.enforces)
        self.enforces, self.off = enforces and not off, off

    def enforcing(self, transcript: bytes) -> bool:
        """Whether what is said of an operation on *transcript* is done."""
        began = self._began.get(transcript) if self._began else None
        return self.enforces if began is None else any(began.values())

    def began(self) -> dict[bytes, dict[int, bool]]:
        """By transcript and token: whether what was said was done when those fences opened that are older than the last
        `switch`."""
        return self._began

    def recall(self, began: dict[bytes, dict[int, bool]]) -> None:
        """Go on from what another guard told as `began`."""
        self._began = began

    @property
    def old_fences(self) -> int:
        """Open fences that were opened before the last `switch`, and end as they began."""
        return sum(map(len, self._began.values()))

    def _told(self, effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
        """*effects*; fences that they close are to be remembered no more."""
        if self._began:
            for effect in effects:
                if isinstance(effect, FenceClosed):
                    tokens = self._began.get(effect.fence.transcript, {})
                    tokens.pop(effect.fence.token, None)
                    if not tokens:
                        self._began.pop(effect.fence.transcript, None)
        return effects

    def _decide(self, facts: Facts) -> Decision:
        """What the policy says; the lane alone while it is off."""
        decision = self.decider.decide(facts)
        if not self.off:
            return decision
        passed = self._passed.get(decision)
        if passed is None:
            if len(self._passed) >= _PASSED:
                self._passed.clear()
            passed = Decision(decision.lane, decision.evidence, OFF, -1, "allow")
            self._passed[decision] = passed
        return passed

    # ---- operations

    def actor(self, writer: Writer, lane: str = "") -> Actor:
        """*writer* as fences know it."""
        process = writer.process
        tgid, start = (writer.tgid, 0) if process is None else (process.tgid, process.start)
        return Actor(tgid, start, writer.tid, writer.main, lane)

    def standing(self, writer: Writer, transcript: bytes, kind: Happened) -> Standing:
        """How an operation of *kind* by *writer* would stand to the fence of its own process."""
        return self.machine.standing(transcript, self.actor(writer), kind)

    def lane(self, writer: Writer, transcript: bytes) -> str:
        """The lane of a look by *writer*."""
        return self.decider.decide(Facts(writer, "look", "transcript", transcript)).lane

    def rule(
        self,
        writer: Writer,
        transcript: bytes,
        kind: Happened,
        operation: OperationClass,
        *,
        path: bytes | None = None,
        to: bytes | None = None,
        records: tuple[RecordMeta, ...] = (),
        truncates: bool = False,
    ) -> Ruling:
        """What is to become of an operation on *transcript* that has not been done. path, to: of a rename or link."""
        actor, machine = self.actor(writer), self.machine
        outcome = machine.relate(transcript, actor, kind, records, truncates)
        standing = machine.standing(transcript, actor, kind, records, truncates)
        lock = machine.lock(transcript, actor)
        claim = self._claims.get((*actor.process, transcript)) if self._claims else None
        decision = self._decide(
            Facts(
                writer,
                operation,
                "transcript",
                transcript if path is None else path,
                to,
                records[0] if records else None,
                outcome.relation,
                "owner" if outcome.continues else None,
                lock,
                claim,
            )
        )
        mark = self._mark(outcome)
        return Ruling(decision, outcome.relation, outcome.continues, standing, lock, actor.process, mark)

    def judge(self, writer: Writer, happening: Happening) -> Judgement:
        """What the policy says of an operation by *writer* on a transcript or lock, and what that did to the fences."""
        path, kind, records = happening.path, happening.kind, happening.records
        transcript = self._feed.transcript_of(path) if kind is Kind.LOCK else path
        machine = self.machine
        lock: LockRelation = "free"
        before = NONE
        steps = self._feed.steps(happening)
        actor = self.actor(writer)
        if machine.watches(transcript) or happening.to is not None:
            lock = machine.lock(transcript, actor)
            before = self._relation(steps, transcript, actor, records, happening.truncates)
        claim = self._claims.get((*actor.process, transcript)) if self._claims else None
        decision = self._decide(
            Facts(
                writer,
                happening.operation or operation_class(happening.op),
                _FILES[kind],
                path,
                happening.to,
                records[0] if records else None,
                before.relation,
                "owner" if before.continues else None,
                lock,
                claim,
            )
        )
        self.hits[decision.index] += 1
        effects: tuple[Effect, ...] = ()
        if steps:
            actor = actor._replace(lane=decision.lane)
            for step, name, old, new, to in steps:
                event = Event(
                    step, name, actor, happening.mono, happening.wall, old, new, records, to, 0,
                    happening.staged, happening.side, happening.aside, happening.truncates,
                )  # fmt: skip
                effects += self._told(machine.apply(event).effects)
        return Judgement(decision, self._mark(before), lock, claim, effects)

    def other(
        self, writer: Writer, op: str, path: bytes, to: bytes | None, operation: OperationClass | None
    ) -> Decision:
        """The same for a file that is neither transcript nor lock."""
        registry = self.registry
        file: FileClass = "registry" if registry and registry in (path, to) else "other"
        decision = self._decide(Facts(writer, operation or operation_class(op), file, path, to))
        self.hits[decision.index] += 1
        return decision

    def _relation(
        self,
        steps: Sequence[Step],
        transcript: bytes,
        actor: Actor,
        records: tuple[RecordMeta, ...],
        truncates: bool,
    ) -> Outcome:
        """How the operation stands to the fences before it; of a rename to those of both names, a foreign one first."""
        if not steps:
            return self.machine.relate(transcript, actor, Happened.LOOK)
        found = NONE
        for kind, name, *_ in steps:
            outcome = self.machine.relate(name, actor, kind, records, truncates)
            if found.relation == "none" or outcome.relation == "other":
                found = outcome
        return found

    def _mark(self, outcome: Outcome) -> FenceMark | None:
        return (
            None if outcome.relation == "none" else FenceMark(outcome.token, outcome.owner, outcome.relation)
        )

    # ---- what happens besides

    def unseen(
        self, path: bytes, before: Fingerprint | None, after: Fingerprint | None, mono: int, wall: int
    ) -> tuple[Effect, ...]:
        """Somebody has changed the transcript *path* below the mount."""
        if not self.machine.watches(path):
            return ()
        nobody = Actor(0, 0, 0, False, "unseen")
        event = Event(Happened.UNSEEN, path, nobody, mono, wall, before, after)
        return self._told(self.machine.apply(event).effects)

    def exited(self, process: tuple[int, int], mono: int, wall: int) -> tuple[Effect, ...]:
        """A process (tgid, start) is gone."""
        return self._told(self.machine.apply(process_exit(process, mono, wall)).effects)

    def tick(self, mono: int, wall: int) -> tuple[Effect, ...]:
        """Time went on."""
        return self._told(self.machine.apply(tick(mono, wall)).effects)

    def seed(self, locks: Iterable[tuple[bytes, LockHolder]], mono: int, wall: int) -> None:
        """Lock files (path, what they say) that are there since before the mount."""
        for path, holder in locks:
            actor = Actor(holder.pid or 0, holder.starttime or 0, holder.pid or 0, False, "")
            for kind in (
                (Happened.LOCK_CREATED, Happened.LOCK_KEPT) if holder.kept else (Happened.LOCK_CREATED,)
            ):
                event = Event(kind, self.transcript_of(path, Kind.LOCK), actor, mono, wall)
                self.machine.apply(event)

    # ---- claims

    def claim(self, writer: Writer, path: bytes, lane: str | None) -> None:
        """*writer*'s process says that it is *lane* in what it does to the transcript *path*; None: no more."""
        process = writer.process
        if process is None:
            return
        key = (process.tgid, process.start, path)
        self._claims.pop(key, None)
        if lane is not None:
            self._claims[key] = lane
            if len(self._claims) > _CLAIMS:
                self._claims.popitem(last=False)
        self.claims_changed(msgspec.msgpack.encode([(*each, word) for each, word in self._claims.items()]))

    def recall_claims(self, data: bytes | None) -> None:
        """Go on from what `claims_changed` was told last, by another guard."""
        if data is not None:
            found = msgspec.msgpack.decode(data, type=list[tuple[int, int, bytes, str]])
            self._claims.update(((tgid, start, path), lane) for tgid, start, path, lane in found)

    def claimed(self, writer: Writer, path: bytes) -> str | None:
        """What *writer*'s process claims to be."""
        process = writer.process
        return None if process is None else self._claims.get((process.tgid, process.start, path))

    def transcript_of(self, path: bytes, kind: Kind) -> bytes:
        """The path of the transcript that *path* is, or is the lock of."""
        return self._feed.transcript_of(path) if kind is Kind.LOCK else path
