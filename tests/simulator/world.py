"""The world of one story: files, processes with threads, and a mount that tells the machine what it sees.

Everything that an actor does is one method call here, and one line of the story. What the *truth* is (which run
died, of what, and when) is written down beside it, and never shown to the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from guardfs.fence.effects import Effect, FenceClosed, FenceOpened
from guardfs.fence.events import NOBODY, Actor, Event, Kind, ProcessKey, process_exit, tick
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.machine import Machine
from guardfs.transcript.meta import PART, RecordMeta
from tests.simulator.files import Files

TRANSCRIPT = "a.jsonl"
_WALL = 1_800_000_000 * 10**9
MS = 10**6


class Death(NamedTuple):
    """A run died at a look made at this time, because of these events (their numbers)."""

    process: ProcessKey
    wall: int
    causes: frozenset[int]


class Process:
    """A process of the story. mutex: who of its lanes holds the lock in its memory; syncing: who has its main
    thread; session: whether a turn or a compaction of the session runs."""

    def __init__(self, tgid: int, name: str) -> None:
        self.tgid, self.name = tgid, name
        self.key: ProcessKey = (tgid, 1)
        self.mutex: object | None = None
        self.syncing: object | None = None
        self.session: object | None = None
        self.busy: set[int] = set()
        self.alive = True


class World:
    """One transcript, its lock file, and whoever works on them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.files = Files()
        self.story: list[str] = []
        self.effects: list[Effect] = []
        self.seq = 0
        self.ids = 0
        self.last: str | None = None
        self.mono = 0
        self.changes: list[int] = []
        self.unnoticed: set[int] = set()
        self.deaths: list[Death] = []
        self.accepted: list[tuple[ProcessKey, int]] = []
        self.holder: Process | None = None
        self.processes: list[Process] = []
        self.owners: dict[ProcessKey, object] = {}

    def process(self, name: str) -> Process:
        """A new one; its id is never used again."""
        made = Process(100 + 10 * len(self.processes), name)
        self.processes.append(made)
        return made

    @property
    def wall(self) -> int:
        return _WALL + self.mono

    # -- what the mount sees ---------------------------------------------------------------------------------------

    def tell(
        self,
        kind: Kind,
        actor: Actor,
        before: Fingerprint | None = None,
        after: Fingerprint | None = None,
        records: tuple[RecordMeta, ...] = (),
        said: str = "",
    ) -> None:
        """One event, and what the machine answers."""
        self.seq += 1
        self.mono += MS
        if before is not None and before != after:
            self.changes.append(self.seq)
        event = Event(
            kind, TRANSCRIPT.encode(), actor, self.mono, self.wall, before, after, records, None, self.seq
        )
        self._apply(
            event, f"{actor.lane:<12}{'main' if actor.main else actor.tid % 10!s:<5}{said or kind.word}"
        )

    def _apply(self, event: Event, line: str) -> None:
        self.story.append(f"{self.seq:>4}  {line}")
        outcome = self.machine.apply(event)
        for effect in outcome.effects:
            self.effects.append(effect)
            detail = getattr(effect, "outcome", getattr(effect, "reason", getattr(effect, "kind", "")))
            self.story.append(f"      {'':<12}     -> {type(effect).__name__} {detail}")
        tokens = [each.fence.token for each in self.effects if isinstance(each, FenceOpened)]
        assert tokens == sorted(set(tokens)), "a token was given twice, or fell"

    # -- what a thread can do --------------------------------------------------------------------------------------

    @contextmanager
    def pool(self, process: Process, lane: str) -> Iterator[Actor]:
        """A free pool thread; it is not anybody else's until the block ends."""
        tid = next(tid for tid in range(process.tgid + 1, process.tgid + 9) if tid not in process.busy)
        process.busy.add(tid)
        try:
            yield Actor(process.tgid, 1, tid, False, lane)
        finally:
            process.busy.discard(tid)

    def main(self, process: Process, lane: str) -> Actor:
        return Actor(process.tgid, 1, process.tgid, True, lane)

    def look(self, actor: Actor, said: str = "stat") -> Fingerprint:
        seen = self.files.fingerprint(TRANSCRIPT)
        self.tell(Kind.LOOK, actor, after=seen, said=said)
        return seen

    def record(self, role: str, parent: str | None = None) -> RecordMeta:
        """A new record; where nothing else is said, it goes on from the last one of the file, as most writers do."""
        self.ids += 1
        new = f"{self.ids:08x}"
        parent = self.last if parent is None else parent
        if role in ("custom", "session", "model_change", "compaction"):
            return RecordMeta(role, None, new, None if role == "session" else parent)
        if role == "mirror":
            return RecordMeta("message", "assistant", new, parent, "openclaw", "gateway-injected")
        return RecordMeta("message", role, new, parent)

    def append(self, actor: Actor, record: RecordMeta, part: str = "whole") -> None:
        """One write: of a whole record, of its beginning, or of its end."""
        text = f"{record.role or record.type} {record.id}\n".encode()
        if part != "whole":
            half = len(text) // 2
            text = text[:half] if part == "begin" else text[half:]
        before = self.files.fingerprint(TRANSCRIPT)
        self.files.append(TRANSCRIPT, text)
        after = self.files.fingerprint(TRANSCRIPT)
        self.last = record.id
        said = f"append {record.role or record.type}" + ("" if part == "whole" else f" ({part})")
        self.tell(Kind.APPEND, actor, before, after, (PART if part == "begin" else record,), said)

    def change(self, kind: Kind, actor: Actor, said: str = "") -> None:
        """A change of another kind. RENAME_OVER and CREATE leave an empty file or a fresh one."""
        before, files = self.files.fingerprint(TRANSCRIPT), self.files
        if kind is Kind.CREATE:
            files.create(TRANSCRIPT)
        elif kind is Kind.TRUNCATE:
            files.truncate(TRANSCRIPT, 0)
        elif kind is Kind.REWRITE:
            files.overwrite(TRANSCRIPT, b"user x")
        elif kind is Kind.ATTRIBUTES:
            files.change_attributes(TRANSCRIPT)
        elif kind is Kind.RENAME_AWAY:
            files.rename(TRANSCRIPT, f"old.{self.seq}")
        elif kind is Kind.RENAME_OVER:
            files.create("new")
            files.append("new", files.read(TRANSCRIPT))
            files.rename("new", TRANSCRIPT)
        else:
            files.unlink(TRANSCRIPT)
        self.tell(kind, actor, before, self.files.fingerprint(TRANSCRIPT), said=said)

    def below(self, drift: bool, noticed: bool) -> None:
        """A change that no request came for; noticed: by the watch on the directory below."""
        before = self.files.fingerprint(TRANSCRIPT)
        if before == ABSENT:
            return
        if drift:
            self.files.change_attributes(TRANSCRIPT)
        else:
            self.files.append(TRANSCRIPT, b"user below\n")
        after = self.files.fingerprint(TRANSCRIPT)
        if noticed:
            self.tell(
                Kind.UNSEEN, NOBODY._replace(lane="below"), before, after, said="drift" if drift else "append"
            )
            return
        self.seq += 1
        self.changes.append(self.seq)
        self.unnoticed.add(self.seq)
        self.story.append(f"{self.seq:>4}  below            {'drift' if drift else 'append'}, not noticed")

    # -- the lock file ---------------------------------------------------------------------------------------------

    def take_lock(self, process: Process, actor: Actor) -> bool:
        """Tries to create it; a dead holder's is removed first."""
        if self.holder is not None:
            if not self.holder.alive:
                self.holder = None
                self.tell(Kind.LOCK_REMOVED, actor, said="remove a dead holder's lock")
            return False
        self.holder = process
        self.tell(Kind.LOCK_CREATED, actor, said="lock")
        return True

    def drop_lock(self, process: Process, actor: Actor) -> None:
        """Removes it if it is still there and ours."""
        self.tell(Kind.LOCK_LOOK, actor, said="is the lock mine?")
        if self.holder is process:
            self.holder = None
            self.tell(Kind.LOCK_REMOVED, actor, said="unlock")

    def steal_lock(self, actor: Actor) -> None:
        if self.holder is not None:
            self.holder = None
            self.tell(Kind.LOCK_REMOVED, actor, said="remove the lock of another")

    # -- processes and time ----------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """It is gone; whatever it held stays."""
        process.alive = False
        self.owners.pop(process.key, None)
        self.seq += 1
        self.mono += MS
        self._apply(process_exit(process.key, self.mono, self.wall), f"{process.name:<12}     is gone")
        left = [view for view in self.machine.fences(self.mono) if view.fence.process == process.key]
        assert not left, "a fence outlives its owner"

    def wait(self, seconds: int) -> None:
        self.seq += 1
        self.mono += seconds * 10**9
        self._apply(tick(self.mono, self.wall), f"                 {seconds} s pass")

    # -- truth and machine -----------------------------------------------------------------------------------------

    def believe(self, process: ProcessKey, expected: Fingerprint, by_main: bool) -> None:
        """What a run between two cycles knows, the machine has to know."""
        mine = [view for view in self.machine.fences(self.mono) if view.fence.process == process]
        closed = [
            each for each in self.effects if isinstance(each, FenceClosed) and each.fence.process == process
        ]
        if not mine:
            assert closed and closed[-1].reason == "idle", "the machine lost a fence"
        else:
            assert by_main or mine[0].baseline == expected, "the machine has another baseline than the owner"

    def check_owners(self) -> None:
        """At most one process's operations are the owner's."""
        own = {
            process.name
            for process in self.processes
            for actor in (
                Actor(*process.key, process.tgid, True, ""),
                Actor(*process.key, process.tgid + 1, False, ""),
            )
            if self.machine.relate(TRANSCRIPT.encode(), actor, Kind.APPEND).relation == "own"
        }
        assert len(own) <= 1, f"{own} all write through"
