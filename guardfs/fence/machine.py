"""The fence machine: events in, relations and effects out. Pure: no clock, no file; one object for one mount.

    machine = Machine(idle_timeout_ns=15 * 60 * 10**9)
    outcome = machine.apply(event)       # after the operation was done, in the order of the answers
    machine.relate(...)                  # before it is done: the same relation, and nothing is changed

A transcript on which nothing goes on costs its token only. Cycles and fences are those of a *process* (tgid,
start): two processes can have a fence on one transcript at the same time; the oldest one is the one that `Outcome`
speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from guardfs.fence.cycle import LOOK, MAIN_READ, MAIN_WRITE, WRITE, Cycle
from guardfs.fence.effects import NONE, Effect, FenceClosed, FenceFacts, LockLost, LockReclaimed, Outcome
from guardfs.fence.events import CHANGES, OPENS, TAKES_NAME, Actor, Event, Kind, ProcessKey
from guardfs.fence.fence import Place
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.judge import Judge
from guardfs.fence.places import Places
from guardfs.fence.protocol import PROTOCOLS, FenceProtocol
from guardfs.fence.relation import NO_FENCE, Standing, relate, serves, standing
from guardfs.fence.tokens import Tokens
from guardfs.fence.versions import DEFAULT, Rule
from guardfs.policy.model import LockRelation
from guardfs.transcript.meta import RecordMeta

IDLE_TIMEOUT_NS = 15 * 60 * 10**9

Journal = Callable[[Event, int, tuple[Effect, ...], tuple[bytes, ...]], None]
"""Told of each event that was applied, of the transcript's token before it, its effects, and of the transcripts that
it may have changed, where it was about none."""


class FenceView(msgspec.Struct, frozen=True):
    """One open fence, for `guardfs status`. age, silent: ns. changes: by anybody since its baseline."""

    fence: FenceFacts
    baseline: Fingerprint
    age: int
    silent: int
    checks: int
    refreshes: int
    changes: int
    locked: bool


class Machine:
    """All fences of one mount. Not thread-safe.

    protocol: how fences show. rule: what the agent's version does at a check. idle_timeout_ns: silence of an owner,
    without the lock file, after which its fence closes; noticed at a TICK.
    """

    def __init__(
        self,
        *,
        protocol: str | FenceProtocol = "lock-file",
        rule: Rule = DEFAULT,
        idle_timeout_ns: int = IDLE_TIMEOUT_NS,
        tokens: Tokens | None = None,
    ) -> None:
        strategy = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
        self._judge = Judge(strategy, rule, tokens or Tokens())
        self._begins, self._ends = strategy.begins, strategy.ends
        self._ongoing = Places(self._judge, idle_timeout_ns)
        self._places = self._ongoing.all
        self.journal: Journal | None = None

    # -- what the mount asks ---------------------------------------------------------------------------------------

    def apply(self, event: Event) -> Outcome:
        """Takes in one event. relation and continues are as they were when it came; effects tell what it changed."""
        journal = self.journal
        if journal is None:
            return self._apply(event)
        token = self._judge.tokens.last(event.transcript)
        touched: tuple[bytes, ...] = ()
        if event.kind is Kind.EXIT:
            touched = tuple(self._ongoing.of_process.get(event.actor.process, ()))
        outcome = self._apply(event)
        if event.kind is Kind.TICK:
            touched = tuple(e.fence.transcript for e in outcome.effects if isinstance(e, FenceClosed))
        journal(event, token, outcome.effects, touched)
        return outcome

    def _apply(self, event: Event) -> Outcome:
        kind = event.kind
        place = self._places.get(event.transcript)
        if place is None:
            if kind in self._begins:
                place = self._places[event.transcript] = Place()
            elif kind is Kind.EXIT:
                return _told(self._ongoing.exit(event.actor.process, event.mono, event.wall))
            elif kind is Kind.TICK:
                return _told(self._ongoing.tick(event.mono, event.wall))
            else:
                return NONE
        outcome = NONE
        if place.fences or place.cycles:
            outcome = relate(place, event.actor, kind, event.records, self._judge.protocol, event.truncates)
        effects: list[Effect] = []
        if kind in self._begins:
            effects = self._begin(place, event)
        elif kind in self._ends:
            effects = self._end(place, event)
        elif kind is Kind.LOCK_LOOK:
            effects = self._lock_looked_at(place, event)
        elif kind is Kind.LOCK_KEPT:
            self._lock_kept(place, event)
        else:
            self._note(place, event)
        if effects:
            outcome = msgspec.structs.replace(outcome, effects=tuple(effects))
        if place.quiet:
            del self._places[event.transcript]
        return outcome

    def relate(
        self,
        transcript: bytes,
        actor: Actor,
        kind: Kind,
        records: tuple[RecordMeta, ...] = (),
        truncates: bool = False,
    ) -> Outcome:
        """The relation that an operation would have now."""
        place = self._places.get(transcript)
        return NONE if place is None else relate(place, actor, kind, records, self._judge.protocol, truncates)

    def standing(
        self,
        transcript: bytes,
        actor: Actor,
        kind: Kind,
        records: tuple[RecordMeta, ...] = (),
        truncates: bool = False,
    ) -> Standing:
        """How an operation would stand to its own process's fence now."""
        place = self._places.get(transcript)
        if place is None:
            return NO_FENCE
        return standing(place, actor, kind, records, self._judge.protocol, truncates)

    def owners(self, transcript: bytes) -> tuple[ProcessKey, ...]:
        """The processes with an open fence, the oldest first; without one, the process whose fence is about to
        open."""
        place = self._places.get(transcript)
        if place is None:
            return ()
        if not place.fences:
            opening = place.opening
            return () if opening is None else (opening.actor.process,)
        return self.fenced(transcript)

    def fenced(self, transcript: bytes) -> tuple[ProcessKey, ...]:
        """The same without the one whose fence is about to open."""
        place = self._places.get(transcript)
        return () if place is None else tuple(fence.facts.process for fence in place.fences)

    def beginning(self, transcript: bytes) -> tuple[tuple[ProcessKey, Fingerprint], ...]:
        """The processes without a fence that are about to open one, be others open or not, each with what it saw
        last."""
        place = self._places.get(transcript)
        if place is None:
            return ()
        return tuple(
            (process, cycle.looks[-1].seen)
            for process, cycle in place.cycles.items()
            if cycle.opening and cycle.looks and place.any_fence(process) is None
        )

    def away(self, transcript: bytes) -> tuple[ProcessKey, ...]:
        """The processes whose fence the idle timeout has closed, and who may come back."""
        place = self._places.get(transcript)
        return () if place is None else tuple(fence.facts.process for fence in place.away)

    def relies(self, transcript: bytes, process: ProcessKey) -> Fingerprint | None:
        """What *process* expects to see, by its open fence or the one that idle closed; None: it has none."""
        place = self._places.get(transcript)
        fence = None if place is None else place.any_fence(process)
        return None if fence is None else fence.expected

    def forgives(self, transcript: bytes, actor: Actor) -> Fingerprint | None:
        """What the first look of a lock cycle is to be shown, where the owner wrote past its own lock and does not
        know; None: what there is. *actor* looks."""
        place = self._places.get(transcript)
        fence = None if place is None else place.any_fence(actor.process)
        if place is None or fence is None or not fence.unlocked:
            return None
        cycle = place.cycles.get(actor.process)
        if cycle is None or cycle.looks or not cycle.kin(actor):
            return None
        return fence.expected

    def late(self, transcript: bytes, actor: Actor) -> bool:
        """Whether the lock cycle of *actor*'s process has come to the look that it is to rely on, as far as that
        shows: what is written now it does not expect."""
        place = self._places.get(transcript)
        cycle = None if place is None else place.cycles.get(actor.process)
        return cycle is not None and len(cycle.looks) > 1

    def begins(self, transcript: bytes, actor: Actor) -> bool:
        """Whether *actor*, who opens the transcript to read, shows by it that a turn begins: the main thread reads what
        it is to go on from, under the lock that a pool thread of its process has taken, and nothing is written yet.
        A gateway that only looks for its reply at the end does not read by its main thread."""
        place = self._places.get(transcript)
        cycle = None if place is None else place.cycles.get(actor.process)
        if cycle is None or WRITE in cycle.shape or MAIN_WRITE in cycle.shape:
            return False
        return actor.main and not cycle.kin(actor) and cycle.begun

    def reads_first(self, transcript: bytes, actor: Actor) -> bool:
        """Whether *actor*, who opens the transcript to read, does so first of all in its process's lock cycle."""
        place = self._places.get(transcript)
        cycle = None if place is None else place.cycles.get(actor.process)
        return (
            cycle is not None and cycle.kin(actor) and cycle.shape in ("", LOOK)
        )  # the look is that of the open

    def held(self, transcript: bytes) -> bool:
        """Whether somebody who lives has the lock file."""
        place = self._places.get(transcript)
        return place is not None and place.holder is not None

    def moved(self, transcript: bytes) -> None:
        """The guard itself has changed the file: what was known of its state is no measure any more."""
        place = self._places.get(transcript)
        if place is not None:
            place.known = None

    def watches(self, transcript: bytes) -> bool:
        """Whether anything but a new cycle matters to *transcript* now; if not, no other event needs to be made."""
        return transcript in self._places

    def lock(self, transcript: bytes, actor: Actor) -> LockRelation:
        """Who holds the lock file: nobody, *actor*'s own line of work, as far as its cycle tells, or another one: of
        the same process, of another, of a dead one."""
        place = self._places.get(transcript)
        holder = None if place is None else place.holder or place.left
        if place is None or holder is None:
            return "free"
        cycle = place.cycles.get(actor.process) if holder.process == actor.process else None
        if cycle is None:
            return "own" if holder.process == actor.process else "other"
        return "own" if cycle.kin(actor) or serves(cycle, actor, self._judge.protocol) else "other"

    def fences(self, mono: int) -> Iterator[FenceView]:
        """The open fences; mono: now."""
        for place in self._places.values():
            for fence in place.fences:
                yield FenceView(
                    fence.facts,
                    fence.baseline,
                    mono - fence.opened_mono,
                    mono - fence.seen,
                    fence.checks,
                    fence.refreshes,
                    fence.changes.count,
                    place.holds(fence.process),
                )

    @property
    def open_fences(self) -> int:
        """Their number."""
        return sum(len(place.fences) for place in self._places.values())

    @property
    def places(self) -> int:
        """Transcripts of which more is known than their token."""
        return len(self._places)

    def transcripts(self) -> list[bytes]:
        """Them."""
        return list(self._places)

    def processes(self) -> frozenset[ProcessKey]:
        """Processes whose end matters: those with a cycle or a fence. The mount watches them (pidfd)."""
        return frozenset(self._ongoing.of_process)

    def tokens(self) -> dict[bytes, int]:
        """The last token of every transcript, to be kept; `FenceOpened` tells each new one."""
        return self._judge.tokens.snapshot()

    @property
    def token_floor(self) -> int:
        """To be kept with `tokens`."""
        return self._judge.tokens.floor

    def restore(self, tokens: Mapping[bytes, int], floor: int = 0) -> None:
        """Goes on from kept tokens."""
        self._judge.tokens.restore(tokens, floor)

    # -- from one guard to the next

    def place(self, transcript: bytes) -> Place | None:
        """All that is known of *transcript*: nothing but data, which can be kept and given to `take_over`."""
        return self._places.get(transcript)

    def begun(self, transcript: bytes) -> bool:
        """Whether all that is known of *transcript* is one lock cycle that has just begun."""
        place = self._places.get(transcript)
        return place is not None and place.fresh

    def token(self, transcript: bytes) -> int:
        """Its last token."""
        return self._judge.tokens.last(transcript)

    def set_token(self, transcript: bytes, token: int) -> None:
        """The next one is the one after *token*."""
        self._judge.tokens.set(transcript, token)

    def take_over(self, transcript: bytes, place: Place) -> None:
        """Go on from what another machine knew of *transcript*."""
        self._ongoing.take_over(transcript, place)

    def set_idle_timeout(self, ns: int) -> None:
        """Takes effect on open fences, too."""
        self._ongoing.set_idle_timeout(ns)

    def set_rule(self, rule: Rule) -> None:
        """Another version of the agent is known to run."""
        self._judge.rule = rule

    # -- events ----------------------------------------------------------------------------------------------------

    def _begin(self, place: Place, event: Event) -> list[Effect]:
        actor = event.actor
        effects: list[Effect] = []
        left, place.left = place.left, None
        if left is not None:
            effects.append(LockReclaimed(event.transcript, left, actor, event.wall))
        holder = place.holder
        if holder is not None and holder.process != actor.process:
            effects.append(self._lose(place, holder, event))
        earlier = place.cycles.pop(actor.process, None)
        if earlier is not None:  # its lock was taken away, so its release was not seen
            effects += self._ongoing.judged(event.transcript, place, earlier, event.mono, event.wall)
        place.holder = actor
        place.cycles[actor.process] = Cycle(actor, event.mono, event.wall)
        self._ongoing.of_process.setdefault(actor.process, set()).add(event.transcript)
        return effects

    def _end(self, place: Place, event: Event) -> list[Effect]:
        holder, actor = place.holder, event.actor
        if holder is None:
            left, place.left = place.left, None
            return [] if left is None else [LockReclaimed(event.transcript, left, actor, event.wall)]
        if holder.process != actor.process:
            return [self._lose(place, holder, event)]
        place.holder = None
        cycle = place.cycles.pop(holder.process, None)
        effects = (
            []
            if cycle is None
            else self._ongoing.judged(event.transcript, place, cycle, event.mono, event.wall)
        )
        self._ongoing.let_go(event.transcript, place, holder.process)
        return effects

    def _lock_looked_at(self, place: Place, event: Event) -> list[Effect]:
        """Whoever wants to release its lock file looks for it, also if it has lost it."""
        process = event.actor.process
        cycle = place.cycles.get(process)
        if cycle is not None:
            cycle.lock_looked_at(event.actor)
        if cycle is None or not cycle.orphan or not cycle.kin(event.actor):
            return []
        del place.cycles[process]
        effects = self._ongoing.judged(event.transcript, place, cycle, event.mono, event.wall)
        self._ongoing.let_go(event.transcript, place, process)
        return effects

    def _lock_kept(self, place: Place, event: Event) -> None:
        """The lock file says so itself, as soon as it is written."""
        cycle = place.cycles.get(event.actor.process)
        if cycle is not None:
            cycle.kept = True

    def _lose(self, place: Place, holder: Actor, event: Event) -> LockLost:
        """Its cycle is read when its process looks for the lock file, or makes a new one."""
        place.holder = None
        cycle = place.cycles.get(holder.process)
        if cycle is not None:
            cycle.orphan = True
        return LockLost(event.transcript, holder, event.actor, event.wall)

    def _note(self, place: Place, event: Event) -> None:
        kind, actor = event.kind, event.actor
        cycle = place.cycles.get((actor[0], actor[1])) if kind is not Kind.UNSEEN else None
        if cycle is not None and kind in TAKES_NAME and not cycle.kin(actor):
            cycle.taken = True
        known = place.known
        missed = None if event.aside or event.staged else place.missed(event)
        if missed is not None:
            self._change(place, missed, None)
        if cycle is not None and kind in (Kind.LOOK, Kind.OPEN_READ) and not cycle.opening:
            cycle.opening = cycle.begins(actor, kind)
        if kind is Kind.LOOK:
            if cycle is not None and event.after is not None and cycle.kin(actor):
                look = cycle.look(actor, event.after, event.mono, event.wall)
                cycle.opening = cycle.opening or cycle.found_nothing
                fence = place.any_fence(actor.process)
                if fence is not None and len(cycle.looks) < 4:
                    if not fence.expects(look):
                        look.before = fence.changes.copy()
                    elif fence.changes.staged is not None:
                        look.staged = fence.changes.staged.copy()
            elif actor.main and event.after is not None:
                fence = place.any_fence(actor.process)
                if fence is not None:
                    fence.looked(actor.tid, event.after, event.mono, event.wall)
            return
        if kind in OPENS:
            if cycle is not None and cycle.kin(actor):
                cycle.take_back(actor.tid)
            elif actor.main:
                fence = place.any_fence(actor.process)
                if fence is not None:
                    fence.take_back(actor.tid)
        if kind is Kind.OPEN_READ:
            if cycle is not None and cycle.kin(actor):
                cycle.read(actor.tid)
            elif cycle is not None and actor.main:
                cycle.note(MAIN_READ, actor.tid)
        elif kind is Kind.UNSEEN and event.after == known:
            return  # the watch told what had been found already
        elif kind in CHANGES and (event.before is None or event.before != event.after):
            self._change(place, event, cycle)

    def _change(self, place: Place, event: Event, cycle: Cycle | None) -> None:
        actor = event.actor
        serving = cycle is not None and serves(cycle, actor, self._judge.protocol)
        locked = cycle is not None and not cycle.orphan and (cycle.kin(actor) or serving)
        process = None if event.kind is Kind.UNSEEN else actor.process
        fence = None if cycle is None else place.any_fence(cycle.actor.process)
        leaf = None if fence is None else place.leaf(fence)
        place.take_in(event, process, actor.main, locked)
        if cycle is None or not (cycle.kin(actor) or (actor.main and cycle.begun and not cycle.over)):
            return
        cycle.note(WRITE if cycle.kin(actor) else MAIN_WRITE, actor.tid)
        if actor.main and serving and not event.side:
            cycle.wrote(event.records, leaf)


def _told(effects: list[Effect]) -> Outcome:
    return Outcome(effects=tuple(effects)) if effects else NONE
