"""One fence, and all that the machine keeps of one transcript while something goes on there. Pure."""

from __future__ import annotations

from guardfs.fence.changes import NOBODYS, Changes, change_of, is_mirror, with_torn
from guardfs.fence.cycle import Cycle, Look
from guardfs.fence.effects import FenceFacts
from guardfs.fence.events import NOBODY, Actor, Event, Kind, ProcessKey
from guardfs.fence.fingerprint import Fingerprint
from guardfs.transcript.meta import RecordMeta


class Fence:
    """The time in which one process relies on a transcript.

    baseline: what it expects to see, since baseline_mono and baseline_wall (ns). changes: what happened since then,
    by anybody. leaf: id of the last record that it wrote. seen: monotonic time of its last sign of life. idle:
    closed by the idle timeout; kept, because its owner may come back with what it remembers. unlocked: it has written
    since then past its own lock, or in it behind that look.
    """

    __slots__ = (
        "_fresh",
        "_own_before",
        "_wrote",
        "baseline",
        "baseline_mono",
        "baseline_wall",
        "changes",
        "checks",
        "facts",
        "idle",
        "leaf",
        "opened_mono",
        "own_look",
        "refreshes",
        "seen",
        "unlocked",
    )

    def __init__(self, facts: FenceFacts, look: Look, mono: int) -> None:
        self.facts = facts
        self.opened_mono = look.mono
        self.seen = mono
        self.leaf: str | None = None
        self.idle = False
        self.unlocked = False
        self.checks = 0
        self.refreshes = 0
        self._wrote = 0
        self._fresh = False
        self.own_look: Look | None = None
        self._own_before: Look | None = None
        self.rely_on(look)

    def rely_on(self, look: Look) -> None:
        """The owner remembers what it saw at *look*."""
        self.baseline = look.seen
        self.baseline_mono = look.mono
        self.baseline_wall = look.wall
        self.changes = look.since or Changes()
        self._own_before = None
        self.unlocked = any(change.own and change.continues for change in self.changes.all())
        if self.own_look is not None and self.own_look.mono <= look.mono:
            self.own_look = None

    def go_on_from(self, before: Fence) -> None:
        """Its owner, whose fence *before* was closed by the idle timeout, is back, and remembers what it did last."""
        self.leaf = self.leaf or before.leaf
        self._wrote, self._fresh, self._own_before = before._wrote, before._fresh, before._own_before
        if before.own_look is not None and before.own_look.mono > self.baseline_mono:
            self.own_look = before.own_look

    def wrote(self, tid: int, records: tuple[RecordMeta, ...]) -> None:
        """The main thread *tid* of the owner's process went on from the owner's last record."""
        self._wrote = tid if records and records[-1].type == "message" and not is_mirror(records[-1]) else 0

    def looked(self, tid: int, seen: Fingerprint, mono: int, wall: int) -> None:
        """Its main thread looked. From 2026.5.20 on a run that has persisted a message of its own, in its lock or
        not, looks at once, by the same thread, and relies on what it sees."""
        self._fresh = self._wrote == tid
        self._wrote = 0
        if self._fresh:
            self._own_before, self.own_look = self.own_look, Look(tid, seen, mono, wall)

    def take_back(self, tid: int) -> None:
        """That look was the name lookup of an open."""
        if self._fresh and self.own_look is not None and self.own_look.tid == tid:
            self.own_look = self._own_before
        self._fresh = False

    @property
    def expected(self) -> Fingerprint:
        """What the owner has seen last, by its check or after a write of its own."""
        return self.baseline if self.own_look is None else self.own_look.seen

    def expects(self, look: Look) -> bool:
        """Whether the owner finds what it relies on, if it looks now."""
        return look.seen == self.baseline or (self.own_look is not None and self.own_look.seen == look.seen)

    @property
    def process(self) -> ProcessKey:
        """The owner's process."""
        return self.facts.process


class Place:
    """One transcript on which something goes on. fences: open ones, the oldest first; away: those that idle closed;
    holder: who has the lock file; left: a dead process whose lock file is still there; known: the transcript's
    state after the last event that told it."""

    __slots__ = ("_torn", "away", "cycles", "fences", "holder", "known", "left")

    def __init__(self) -> None:
        self.fences: list[Fence] = []
        self.away: list[Fence] = []
        self.cycles: dict[ProcessKey, Cycle] = {}
        self.holder: Actor | None = None
        self.left: Actor | None = None
        self.known: Fingerprint | None = None
        self._torn = NOBODYS

    @property
    def quiet(self) -> bool:
        """Whether nothing needs to be remembered."""
        return not (self.fences or self.cycles or self.away or self.holder or self.left)

    @property
    def fresh(self) -> bool:
        """Whether one process has just taken the lock, and nothing else is known."""
        if self.fences or self.away or self.left or self.known or self._torn or len(self.cycles) != 1:
            return False
        (cycle,) = self.cycles.values()
        return not cycle.shape and not cycle.looks

    @property
    def opening(self) -> Cycle | None:
        """The cycle in which the first fence is about to open: its process relies already on what it reads there."""
        if self.fences:
            return None
        for cycle in self.cycles.values():
            if cycle.opening:
                return cycle
        return None

    def missed(self, event: Event) -> Event | None:
        """The change that lies between the last state that was known and what *event* found, if there is one: it came
        from below the mount, and nobody said so."""
        found = event.after if event.kind is Kind.LOOK else event.before
        known = self.known
        if event.after is not None:
            self.known = event.after
        if found is None or known is None or found == known or event.kind is Kind.UNSEEN:
            return None
        return Event(Kind.UNSEEN, event.transcript, NOBODY, event.mono, event.wall, known, found)

    def holds(self, process: ProcessKey) -> bool:
        """Whether *process* has the lock file."""
        return self.holder is not None and self.holder.process == process

    def open_fence(self, process: ProcessKey) -> Fence | None:
        """The open fence of *process*."""
        for fence in self.fences:
            if fence.facts.process == process:
                return fence
        return None

    def any_fence(self, process: ProcessKey) -> Fence | None:
        """Its open fence, or the one that idle closed."""
        fence = self.open_fence(process)
        if fence is None:
            for fence in self.away:
                if fence.facts.process == process:
                    return fence
            return None
        return fence

    def take_in(self, event: Event, process: ProcessKey | None, main: bool, locked: bool) -> bool:
        """Notes a change by a thread of *process* (None: unseen; main: its main thread; locked: under its own lock)
        for every fence and every look. Answers whether its first record goes on from the last one of its process's
        own fence."""
        continued = False
        for fence in (*self.fences, *self.away):
            own = fence.facts.process == process
            continues = own and main and not event.side and goes_on(event.records, self.leaf(fence))
            continued = continued or continues
            fence.changes.add(
                change_of(event, own=own, continues=continues, locked=locked), event.records, self._torn
            )
            fence.unlocked = fence.unlocked or (continues and not locked)
            if continues:
                fence.wrote(event.actor.tid, event.records)
                fence.leaf = event.records[-1].id or fence.leaf
        for key, cycle in self.cycles.items():
            if cycle.looks:
                change = change_of(
                    event, own=key == process, continues=key == process and continued, locked=locked
                )
                for look in cycle.looks:
                    if look.since is None:
                        look.since = Changes()
                    look.since.add(change, event.records, self._torn)
        if event.records:
            self._torn = with_torn(self._torn, event.actor.process, event.records[-1].part)
        return continued

    def leaf(self, fence: Fence) -> str | None:
        """Id of the last record that *fence*'s owner wrote, in the running cycle or before."""
        cycle = self.cycles.get(fence.facts.process)
        return fence.leaf if cycle is None or cycle.leaf is None else cycle.leaf


def goes_on(records: tuple[RecordMeta, ...], leaf: str | None) -> bool:
    """Whether *records* continue from the record *leaf*. The gateway's own deliveries never do: their parent is
    whatever is last in the file."""
    return leaf is not None and bool(records) and records[0].parent == leaf and not is_mirror(records[0])
