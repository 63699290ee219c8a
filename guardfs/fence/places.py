"""All transcripts on which something goes on, and how cycles and fences end: by release, by exit, by silence.
Pure."""

from __future__ import annotations

from guardfs.fence.cycle import Cycle
from guardfs.fence.effects import Effect, LockLeft
from guardfs.fence.events import ProcessKey
from guardfs.fence.fence import Fence, Place
from guardfs.fence.judge import Judge

MAX_AWAY = 1000
"""Fences closed by the idle timeout whose owners may still come back; of more, the oldest is given up."""

_NEVER = 1 << 62


class Places:
    """all: by transcript. of_process: the transcripts on which a process has a cycle or a fence."""

    def __init__(self, judge: Judge, idle_timeout_ns: int) -> None:
        self.judge = judge
        self.idle_timeout_ns = idle_timeout_ns
        self.all: dict[bytes, Place] = {}
        self.of_process: dict[ProcessKey, set[bytes]] = {}
        self._away: dict[tuple[bytes, int], Fence] = {}
        self._idle_at = _NEVER

    def set_idle_timeout(self, ns: int) -> None:
        """Another timeout, for open fences, too."""
        self.idle_timeout_ns = ns
        self._idle_at = 0

    def judged(self, transcript: bytes, place: Place, cycle: Cycle, mono: int, wall: int) -> list[Effect]:
        fence = place.any_fence(cycle.actor.process)
        effects = self.judge.end_cycle(transcript, place, cycle, mono, wall)
        if fence is not None and fence.idle and fence not in place.away:
            del self._away[transcript, fence.facts.token]
        if place.fences:
            self._idle_at = min(self._idle_at, mono + self.idle_timeout_ns)
        return effects

    def let_go(self, transcript: bytes, place: Place, process: ProcessKey) -> None:
        """Forgets that *process* matters to *transcript*, if it does not any more."""
        if process not in place.cycles and place.any_fence(process) is None:
            names = self.of_process.get(process)
            if names is not None:
                names.discard(transcript)
                if not names:
                    del self.of_process[process]

    def exit(self, process: ProcessKey, mono: int, wall: int) -> list[Effect]:
        effects: list[Effect] = []
        for transcript in sorted(self.of_process.pop(process, ())):
            place = self.all[transcript]
            place.cycles.pop(process, None)  # it ended in the middle: no check of it came to anything
            if place.holder is not None and place.holds(process):
                place.left, place.holder = place.holder, None
                effects.append(LockLeft(transcript, place.left, wall))
            fence = place.any_fence(process)
            if fence is not None:
                effects += self.judge.close(place, fence, "exit", mono, wall)
                self._away.pop((transcript, fence.facts.token), None)
            if place.quiet:
                del self.all[transcript]
        return effects

    def tick(self, mono: int, wall: int) -> list[Effect]:
        effects: list[Effect] = []
        if mono < self._idle_at:
            return effects
        self._idle_at = _NEVER
        for transcript, place in list(self.all.items()):
            for fence in list(place.fences):
                if not place.holds(fence.process):
                    effects += self._silent(transcript, place, fence, mono, wall)
            if place.fences:
                self._idle_at = min(
                    self._idle_at, *(self._patience(place, each, mono) for each in place.fences)
                )
        return effects

    def _patience(self, place: Place, fence: Fence, mono: int) -> int:
        """When *fence* is to be looked at again. Its owner is not silent while it holds the lock file."""
        return (mono if place.holds(fence.process) else fence.seen) + self.idle_timeout_ns

    def _silent(self, transcript: bytes, place: Place, fence: Fence, mono: int, wall: int) -> list[Effect]:
        if fence.seen + self.idle_timeout_ns > mono:
            return []
        effects = self.judge.close(place, fence, "idle", mono, wall)
        fence.idle = True
        place.away.append(fence)
        self._away[transcript, fence.facts.token] = fence
        if len(self._away) > MAX_AWAY:
            self._give_up(*next(iter(self._away)))
        return effects

    def take_over(self, transcript: bytes, place: Place) -> None:
        """*place* is what another guard knew of *transcript*."""
        self.all[transcript] = place
        for process in {*place.cycles, *(fence.process for fence in (*place.fences, *place.away))}:
            self.of_process.setdefault(process, set()).add(transcript)
        for fence in place.away:
            self._away[transcript, fence.facts.token] = fence
        if place.fences:
            self._idle_at = 0

    def _give_up(self, transcript: bytes, token: int) -> None:
        """Its owner was away for too long, and so were too many others."""
        fence, place = self._away.pop((transcript, token)), self.all[transcript]
        place.away.remove(fence)
        self.let_go(transcript, place, fence.process)
        if place.quiet:
            del self.all[transcript]
