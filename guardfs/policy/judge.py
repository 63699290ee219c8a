"""The policy in force, and what it asks about that only the past tells: fences, locks, claims. Pure.

One for each mount. The mount says what was done (`Happening`) and by whom; `judge` says what that is called, which rule
decides on it, and what became of the transcript's fences.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from guardfs.audit.event import FenceMark, Kind
from guardfs.fence.effects import NONE, Effect, Outcome
from guardfs.fence.events import Actor, Event, process_exit, tick
from guardfs.fence.events import Kind as Happened
from guardfs.fence.feed import Feed, Happening
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.lockfile import LockHolder
from guardfs.fence.machine import Machine
from guardfs.lanes.writer import Writer
from guardfs.policy.decide import Decider
from guardfs.policy.facts import Decision, Facts, operation_class
from guardfs.policy.model import Chain, FileClass, LockRelation, seconds
from guardfs.transcript.names import NameRules

CLAIM = b"user.guardfs.lane"
"""The extended attribute by which a writer claims a lane. The guard keeps it: writing it below would change the file's
ctime, which the agent takes for another's write."""

MAX_CLAIM = 200
"""Characters of a claim; a lane's name has at most 64."""

_CLAIMS = 4096
_FILES: dict[Kind, FileClass] = {Kind.OTHER: "other", Kind.TRANSCRIPT: "transcript", Kind.LOCK: "lock"}


class Judgement(NamedTuple):
    """A decision, those of its facts that the log has not got elsewhere, and what happened to fences."""

    decision: Decision
    fence: FenceMark | None
    lock: LockRelation
    claim: str | None
    effects: tuple[Effect, ...] = ()


class Judge:
    """Decides by the policy in force; `use` puts another one in its place, between two operations.

    token_floor: no fencing token up to this one is given again. Not thread-safe.
    """

    def __init__(self, decider: Decider, names: NameRules, token_floor: int = 0) -> None:
        self._claims: OrderedDict[tuple[int, int, bytes], str] = OrderedDict()
        fence = decider.policy.fence
        self.machine = Machine(
            protocol=fence.protocol, idle_timeout_ns=int(seconds(fence.idle_timeout) * 1e9)
        )
        self.machine.restore({}, token_floor)
        self._marks: dict[tuple[int, str, str], FenceMark] = {}
        self._feed = Feed(names, self.machine.watches)
        self.use(decider, names)

    def use(self, decider: Decider, names: NameRules) -> None:
        """From now on decide by *decider*; *names* are those of the same policy. Open fences stay. The fence protocol
        is that of the first policy (`unchangeable`)."""
        self.decider = decider
        self._feed.names = names
        self.registry = decider.policy.transcripts.registry.encode("utf-8", "surrogateescape")
        self.idle_timeout = seconds(decider.policy.fence.idle_timeout)
        self.machine.set_idle_timeout(int(self.idle_timeout * 1e9))
        self.hits = [0] * (
            len(decider.policy.rules) + 1
        )  # the last: no rule, which a checked policy never comes to

    # ---- operations

    def judge(self, writer: Writer, happening: Happening) -> Judgement:
        """What the policy says of an operation by *writer*, and what it did to the fences, which are fed with it."""
        if happening.kind is Kind.OTHER:
            return Judgement(self._decide(writer, happening, self._file(happening)), None, "free", None)
        process = writer.process
        tgid, start = (writer.tgid, 0) if process is None else (process.tgid, process.start)
        actor = Actor(tgid, start, writer.tid, writer.main, "")
        transcript = self.transcript_of(happening.path, happening.kind)
        lock = self.machine.lock(transcript, actor)
        claim = self._claims.get((tgid, start, transcript)) if self._claims else None
        events = self._feed.events(happening, actor)
        before = self._relation(events, transcript, actor)
        chain: Chain | None = "owner" if before.continues else None
        decision = self._decide(writer, happening, _FILES[happening.kind], before, chain, lock, claim)
        if not events:
            return Judgement(decision, self._mark(before), lock, claim)
        actor = actor._replace(lane=decision.lane)
        effects: tuple[Effect, ...] = ()
        for event in events:
            effects += self.machine.apply(_by(event, actor)).effects
        return Judgement(decision, self._mark(before), lock, claim, effects)

    def _relation(self, events: list[Event], transcript: bytes, actor: Actor) -> Outcome:
        """How the operation stands to the fences before it; of a rename to those of both names, a foreign one first."""
        if not events:
            if not self.machine.watches(transcript):
                return NONE
            return self.machine.relate(transcript, actor, Happened.LOOK)
        found = NONE
        for event in events:
            outcome = self.machine.relate(event.transcript, actor, event.kind, event.records)
            if found.relation == "none" or outcome.relation == "other":
                found = outcome
        return found

    def _decide(
        self,
        writer: Writer,
        happening: Happening,
        file: FileClass,
        outcome: Outcome = NONE,
        chain: Chain | None = None,
        lock: LockRelation = "free",
        claim: str | None = None,
    ) -> Decision:
        records = happening.records
        decision = self.decider.decide(
            Facts(
                writer,
                happening.operation or operation_class(happening.op),
                file,
                happening.path,
                happening.to,
                records[0] if records else None,
                outcome.relation,
                chain,
                lock,
                claim,
            )
        )
        self.hits[decision.index] += 1
        return decision

    def _file(self, happening: Happening) -> FileClass:
        registry = self.registry
        return "registry" if registry and registry in (happening.path, happening.to) else "other"

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
        return self.machine.apply(Event(Happened.UNSEEN, path, nobody, mono, wall, before, after)).effects

    def exited(self, process: tuple[int, int], mono: int, wall: int) -> tuple[Effect, ...]:
        """A process (tgid, start) is gone."""
        return self.machine.apply(process_exit(process, mono, wall)).effects

    def tick(self, mono: int, wall: int) -> tuple[Effect, ...]:
        """Time went on."""
        return self.machine.apply(tick(mono, wall)).effects

    def seed(self, locks: Iterable[tuple[bytes, LockHolder]], mono: int, wall: int) -> None:
        """Lock files (path, what they say) that are there since before the mount."""
        for path, holder in locks:
            actor = Actor(holder.pid or 0, holder.starttime or 0, holder.pid or 0, False, "")
            event = Event(Happened.LOCK_CREATED, self.transcript_of(path, Kind.LOCK), actor, mono, wall)
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

    def claimed(self, writer: Writer, path: bytes) -> str | None:
        """What *writer*'s process claims to be."""
        process = writer.process
        return None if process is None else self._claims.get((process.tgid, process.start, path))

    def transcript_of(self, path: bytes, kind: Kind) -> bytes:
        """The path of the transcript that *path* is, or is the lock of."""
        return self._feed.transcript_of(path) if kind is Kind.LOCK else path


def _by(event: Event, actor: Actor) -> Event:
    return Event(
        event.kind,
        event.transcript,
        actor,
        event.mono,
        event.wall,
        event.before,
        event.after,
        event.records,
        event.to,
    )
