"""What a cycle that has ended did to the fence of its process: opened, checked, refreshed, closed, killed. Pure."""

from __future__ import annotations

from guardfs.fence.changes import Changes
from guardfs.fence.cycle import LOOK, MAIN_READ, MAIN_WRITE, READ, Cycle, Look
from guardfs.fence.effects import (
    CheckOutcome,
    CloseReason,
    Effect,
    FenceChecked,
    FenceClosed,
    FenceFacts,
    FenceOpened,
    FenceRefreshed,
    Forgotten,
    Stale,
    WroteUnlocked,
)
from guardfs.fence.events import TAKES_NAME, Kind
from guardfs.fence.fence import Fence, Place
from guardfs.fence.fingerprint import ABSENT
from guardfs.fence.incidents import incident, saved
from guardfs.fence.protocol import FenceProtocol, Reading
from guardfs.fence.tokens import Tokens
from guardfs.fence.versions import Rule


class Judge:
    """Reads cycles with the policy's protocol and the agent version's rule; gives out tokens."""

    def __init__(self, protocol: FenceProtocol, rule: Rule, tokens: Tokens) -> None:
        self.protocol = protocol
        self.rule = rule
        self.tokens = tokens

    def end_cycle(self, transcript: bytes, place: Place, cycle: Cycle, mono: int, wall: int) -> list[Effect]:
        """The cycle is over. Behaviour decides: whoever looks again has survived its check."""
        process = cycle.actor.process
        fence = place.any_fence(process)
        reading = self.protocol.read(cycle, fence is not None)
        if reading is Reading.IGNORED or not cycle.looks:
            return self._unlocked(fence, cycle, wall)
        if reading is Reading.OPENED or fence is None:
            effects = []
            if fence is not None:
                effects = self.close(place, fence, "replaced", mono, wall)
            return effects + self._open(transcript, place, cycle, mono, wall)
        effects = []
        fence.seen, away = mono, mono - fence.seen
        if fence.idle:
            effects.append(Stale(fence.facts, away, wall))
        look = cycle.looks[0]
        outcome = self._outcome(fence, look, cycle, reading)
        fence.checks += 1
        before = look.before or Changes()
        effects.append(FenceChecked(fence.facts, fence.baseline, look.seen, outcome, before.count, look.wall))
        if outcome == "died":
            effects.append(incident(fence, look, self.rule, before, look.seen))
            return effects + self.close(place, fence, "died", mono, wall)
        kept = saved(fence, look, self.rule)
        if kept is not None:
            effects.append(kept)
        if outcome != "same" and self.rule.forgets:
            effects += _forgotten(fence, before, wall)
        if reading is Reading.ENDED:
            return effects + self.close(place, fence, "closed", mono, wall)
        if fence.idle:
            self.close(place, fence, "replaced", mono, wall)
            effects += self._open(transcript, place, cycle, mono, wall)
            place.fences[-1].go_on_from(fence)
            return effects
        fence.rely_on(cycle.looks[-1])
        fence.refreshes += 1
        fence.leaf = cycle.leaf or fence.leaf
        effects.append(FenceRefreshed(fence.facts, fence.baseline, wall))
        return effects

    def _unlocked(self, fence: Fence | None, cycle: Cycle, wall: int) -> list[Effect]:
        if fence is None or fence.idle or fence.unlocked or MAIN_WRITE not in cycle.shape:
            return []
        fence.unlocked = any(change.own and change.continues for change in fence.changes.all())
        return [WroteUnlocked(fence.facts, wall)] if fence.unlocked else []

    def _outcome(self, fence: Fence, look: Look, cycle: Cycle, reading: Reading) -> CheckOutcome:
        if look.before is None:
            return "same"
        content = look.before.content()
        accepts = self.rule.answer(fence.baseline, look.seen, content) == "accepts"
        if reading is Reading.REFRESHED and not _found_nothing(cycle):
            return "accepted" if accepts else "survived"
        # Nobody can accept what it has not read.
        return "accepted" if accepts and READ in cycle.shape and not cycle.spoiled else "died"

    def _open(self, transcript: bytes, place: Place, cycle: Cycle, mono: int, wall: int) -> list[Effect]:
        look, actor = cycle.looks[-1], cycle.actor
        facts = FenceFacts(transcript, self.tokens.next(transcript), actor.lane, actor.process, look.wall)
        fence = Fence(facts, look, mono)
        fence.leaf = cycle.leaf
        place.fences.append(fence)
        adopted = READ not in cycle.shape and look.seen != ABSENT
        return [FenceOpened(facts, look.seen, wall, adopted)]

    def close(self, place: Place, fence: Fence, reason: CloseReason, mono: int, wall: int) -> list[Effect]:
        """Takes *fence* off its place. One that idle closed before is only forgotten."""
        if fence.idle:
            place.away.remove(fence)
            return []
        place.fences.remove(fence)
        return [FenceClosed(fence.facts, reason, wall, mono - fence.opened_mono)]


def _found_nothing(cycle: Cycle) -> bool:
    """Whether the second look was the name lookup of an open that came to nothing: the owner wanted to read what
    had been appended, and the name was gone, or was taken away before the open."""
    if cycle.shape.replace(MAIN_READ, "").replace(MAIN_WRITE, "") != LOOK + LOOK:
        return False
    first, second = cycle.looks
    taken = second.since is not None and any(change.kind in TAKES_NAME for change in second.since.all())
    return first.seen.exists and (second.seen == ABSENT or taken)


def _forgotten(fence: Fence, changes: Changes, wall: int) -> list[Effect]:
    """The owner goes on from its own leaf: what others appended is on a dead branch."""
    theirs = tuple(
        change
        for change in changes.all()
        if change.kind is Kind.APPEND and change.records and not (change.own and change.continues)
    )
    return [Forgotten(fence.facts, theirs, wall)] if theirs else []
