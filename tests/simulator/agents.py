"""Who takes part in a story: each is a generator, and gives way after every request that a mount would see of it.

`Turn` is OpenClaw 2026.5.20 as its code and its traces show it, with its own fingerprint in its own memory. It
knows nothing of the machine, and dies as the real one does.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from guardfs.fence.events import Actor, Kind
from guardfs.fence.fingerprint import ABSENT, Fingerprint, same_file
from guardfs.transcript.meta import RecordMeta
from tests.simulator.world import TRANSCRIPT, Death, Process, World

Steps = Iterator[None]


def acquire(world: World, process: Process, lane: str) -> Steps:
    """Takes the lock file, and the lock in the process's memory."""
    while True:
        with world.pool(process, lane) as actor:
            if process.mutex is None and world.take_lock(process, actor):
                process.mutex = lane
                return
        yield


def release(world: World, process: Process, lane: str) -> None:
    with world.pool(process, lane) as actor:
        world.drop_lock(process, actor)
    process.mutex = None


def open_read(world: World, actor: Actor) -> Steps:
    """A name lookup, then the open, if there is something to open."""
    world.look(actor, "look up, to read")
    yield
    if world.files.exists(TRANSCRIPT):
        world.tell(Kind.OPEN_READ, actor)


def write_one(world: World, actor: Actor, record: RecordMeta, split: bool = False) -> Steps:
    """Opens with O_APPEND and O_CREAT, and writes. What is renamed in between is written where nobody looks."""
    world.look(actor, "look up, to append")
    yield
    if world.files.exists(TRANSCRIPT):
        world.tell(Kind.OPEN_WRITE, actor)
    else:
        world.change(Kind.CREATE, actor)
    ino = world.files.fingerprint(TRANSCRIPT).ino
    split = split and world.machine.watches(
        TRANSCRIPT.encode()
    )  # of what began earlier the machine knows nothing
    for part in ("begin", "end") if split else ("whole",):
        yield
        if world.files.fingerprint(TRANSCRIPT).ino == ino:
            world.append(actor, record, part)


def main_thread(world: World, process: Process, lane: str, work: Steps) -> Steps:
    """Synchronous work: nothing else of the process's main thread comes in between."""
    while process.syncing is not None:
        yield
    process.syncing = lane
    yield from work
    process.syncing = None


class Turn:
    """One run of the agent: opens a fence, goes through the deltas of the reply, ends. deltas: which of them write
    what."""

    def __init__(self, world: World, process: Process, lane: str, deltas: tuple[str, ...]) -> None:
        self.world, self.process, self.lane, self.deltas = world, process, lane, deltas
        self.expected: Fingerprint = ABSENT
        self.since = 0
        self.active = self.by_main = False
        self.leaf: str | None = None
        self.pending = [world.record("session"), self._next("user")]

    def _next(self, role: str) -> RecordMeta:
        """A record that goes on from the turn's own last one, as it is in its memory."""
        record = self.world.record(role, self.leaf)
        self.leaf = record.id
        return record

    def steps(self) -> Steps:
        world, process, lane = self.world, self.process, self.lane
        while process.session is not None:
            yield
        process.session = self
        yield from acquire(world, process, lane)
        with world.pool(process, lane) as actor:
            yield from open_read(world, actor)
        yield
        with world.pool(process, lane) as actor:
            world.look(actor)
        yield
        main = world.main(process, lane)
        yield from main_thread(world, process, lane, open_read(world, main))
        if world.files.exists(TRANSCRIPT):
            yield from self._write([self.pending.pop()])
            self.pending = []
        yield
        self._refresh()
        yield
        self.active = True
        world.owners[process.key] = self
        release(world, process, lane)
        self._believed()
        for delta in self.deltas:
            yield
            if (yield from self._cycle(delta)):
                break
        else:
            yield
            yield from self._cycle("end")
        self.active = False
        world.owners.pop(process.key, None)
        process.session = None

    def _cycle(self, delta: str) -> Generator[None, None, bool]:
        """Check, work, refresh. Answers whether the turn died of the check."""
        world, process, lane = self.world, self.process, self.lane
        yield from acquire(world, process, lane)
        yield
        with world.pool(process, lane) as actor:
            seen, wall = world.look(actor, "stat: check"), world.wall
        causes = frozenset(seq for seq in world.changes if seq > self.since)
        if seen != self.expected:
            yield
            if not (yield from self._accepts(seen)):
                world.deaths.append(Death(process.key, wall, causes))
                self.active = False
                release(world, process, lane)
                return True
            world.accepted.append((process.key, wall))
        if delta != "end":
            yield
            if delta in ("assistant", "toolResult"):
                yield from self._write([*self.pending, self._next(delta)])
                self.pending = []
            yield
            self._refresh()
        yield
        release(world, process, lane)
        if delta != "end":
            self._believed()
        return False

    def _accepts(self, seen: Fingerprint) -> Generator[None, None, bool]:
        """Whether the file only grew, by lines of the assistant: it reads them."""
        expected = self.expected
        if not same_file(expected, seen) or seen.size <= expected.size:
            return False
        with self.world.pool(self.process, self.lane) as actor:
            yield from open_read(self.world, actor)
        if not self.world.files.exists(TRANSCRIPT):
            return False
        text = self.world.files.read(TRANSCRIPT)[expected.size : seen.size].decode()
        if not all(
            line == "" or (line.startswith("assistant ") and len(line) == 18) for line in text.split("\n")
        ):
            return False
        self._rely_on(seen)
        return True

    def _refresh(self) -> None:
        with self.world.pool(self.process, self.lane) as actor:
            self._rely_on(self.world.look(actor, "stat: what to expect"))
        self.by_main = False

    def _rely_on(self, seen: Fingerprint) -> None:
        self.expected, self.since = seen, self.world.seq

    def _write(self, records: list[RecordMeta]) -> Steps:
        """Its own records, by the main thread; then that one looks."""
        work = self._write_all(records)
        return main_thread(self.world, self.process, self.lane, work)

    def _write_all(self, records: list[RecordMeta]) -> Steps:
        main = self.world.main(self.process, self.lane)
        for record in records:
            yield from write_one(self.world, main, record)
        seen = self.world.look(main, "stat, after its own write")
        if self.active:
            self._rely_on(seen)
            self.by_main = True

    def write_outside(self) -> Steps:
        """A message of the run that is written without the lock."""
        if not self.pending:  # a session that has no reply yet is written when the first one comes
            yield from self._write([self._next("user")])

    def _believed(self) -> None:
        """Between its cycles the machine has its fence, and its baseline, unless silence closed it."""
        self.world.believe(self.process.key, self.expected, self.by_main)


def mirror(world: World, process: Process, writes: bool) -> Steps:
    """`chat.inject` and the delivery mirror: a header if there is no file; then look, look, read, append, under the
    lock."""
    lane = "mirror"
    main = world.main(process, lane)
    if not world.files.exists(TRANSCRIPT):
        yield from main_thread(world, process, lane, write_one(world, main, world.record("session")))
        yield
    yield from acquire(world, process, lane)
    for _ in range(2):
        yield
        with world.pool(process, lane) as actor:
            world.look(actor)
    if world.files.exists(TRANSCRIPT):
        yield
        with world.pool(process, lane) as actor:
            yield from open_read(world, actor)
    if writes or not world.files.exists(TRANSCRIPT):
        yield
        with world.pool(process, lane) as actor:
            yield from write_one(world, actor, world.record("mirror"))
    yield
    release(world, process, lane)


def new_session(world: World, process: Process, again: bool) -> Steps:
    """`/new`: renamed away, without a lock; again: as `sessions.compact {maxLines}`, which writes a new file then."""
    lane = "compact" if again else "new"
    yield from main_thread(world, process, lane, _rename(world, world.main(process, lane), again))


def _rename(world: World, main: Actor, again: bool) -> Steps:
    yield from open_read(world, main)
    yield
    world.look(main, "look up, to rename")
    yield
    if world.files.exists(TRANSCRIPT):
        world.change(Kind.RENAME_AWAY, main)
        if again:
            yield
            yield from write_one(world, main, world.record("user", "kept"))


def compaction(world: World, process: Process) -> Steps:
    """By the model, between turns: reads, looks, copies, appends and reads, under the lock."""
    lane = "compaction"
    while process.session is not None:
        yield
    process.session = lane
    yield from acquire(world, process, lane)
    main = world.main(process, lane)
    if world.files.exists(TRANSCRIPT):
        for step in ("read", "main", "look", "read", "append", "read"):
            yield
            if step == "main":
                yield from main_thread(world, process, lane, open_read(world, main))
            elif step == "append":
                work = write_one(world, main, world.record("compaction"))
                yield from main_thread(world, process, lane, work)
            else:
                with world.pool(process, lane) as actor:
                    if step == "read":
                        yield from open_read(world, actor)
                    else:
                        world.look(actor)
    yield
    release(world, process, lane)
    process.session = None


def main_noise(world: World, process: Process) -> Steps:
    """What the gateway's main thread does all day."""
    main = world.main(process, "gateway")
    for _ in range(2):
        yield from main_thread(world, process, "gateway", _noise(world, main))
        yield


def _noise(world: World, main: Actor) -> Steps:
    world.look(main, "lstat")
    yield from open_read(world, main)


def control(world: World, process: Process) -> Steps:
    """Control metadata by the gateway's own main thread, without a lock."""
    main = world.main(process, "gateway")
    yield from main_thread(world, process, "gateway", write_one(world, main, world.record("model_change")))


def own_outside(world: World, process: Process) -> Steps:
    """The run that is under way writes outside its lock."""
    for _ in range(6):
        turn = world.owners.get(process.key)
        if isinstance(turn, Turn) and turn.active:
            yield from turn.write_outside()
            return
        yield


def script(world: World, process: Process, what: str) -> Steps:
    """Another process does one thing to the transcript, and ends."""
    lane = process.name
    actor = world.main(process, lane)
    if what in ("user", "assistant", "custom", "split"):
        yield from write_one(
            world, actor, world.record("assistant" if what == "split" else what), what == "split"
        )
    elif what == "honest":
        while not world.take_lock(process, actor):
            yield
        yield
        yield from write_one(world, actor, world.record("user"))
        yield
        world.drop_lock(process, actor)
    elif what == "steal":
        world.steal_lock(actor)
    else:
        world.look(actor, "look up")
        yield
        if world.files.exists(TRANSCRIPT):
            world.change(Kind[what], actor)
    yield
    world.kill(process)
