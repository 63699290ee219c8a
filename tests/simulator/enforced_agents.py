"""Who takes part in an enforced story: each is a generator, and gives way between the requests of its system calls.

As in `agents`, but each line of work really writes: its records, with the parents that it knows. Whoever keeps to the
lock protocol must never find what it relies on changed; whoever has written must read it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from guardfs.mount.caller import Caller
from tests.simulator.enforced_world import TRANSCRIPT, BrokenError, Process, Record, World, last_id

Steps = Iterator[None]
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def acquire(world: World, process: Process, lane: str) -> Steps:
    """Takes the lock file, and the lock in the process's memory."""
    while True:
        if process.mutex is None:
            with world.pool(process) as who:
                if world.take_lock(process, who):
                    process.mutex = lane
                    return
        yield


def release(world: World, process: Process) -> None:
    with world.pool(process) as who:
        world.drop_lock(process, who)
    process.mutex = None


def main_thread(process: Process, lane: str, work: Steps) -> Steps:
    """Synchronous work: nothing else of the process's main thread comes in between."""
    while process.syncing is not None:
        yield
    process.syncing = lane
    yield from work
    process.syncing = None


def append(
    world: World,
    process: Process,
    who: Caller,
    make: Callable[[bytes | None], list[Record]],
    flags: int = APPEND,
) -> Steps:
    """Opens, and writes in one step the records that *make* gives it behind the last one of what is open."""
    file = yield from world.open(process, who, flags)
    if file is not None:
        records = make(world.last(file))
        if not world.content(file):
            header = world.record("session", records[0].author, None)
            records = [header, *records]
        world.write(process, who, file, records)
        yield
        world.close(process, who, file)


class Turn:
    """One run of the agent: opens a fence, goes through the deltas of the reply, ends. deltas: which of them write
    what."""

    def __init__(self, world: World, process: Process, deltas: tuple[str, ...]) -> None:
        self.world, self.process, self.deltas = world, process, deltas
        self.author = f"{process.name}-{process.tgid}:run"
        self.expected: object = None
        self.active = False
        self.leaf: bytes | None = None
        self.unseen = False  # it has written, and not looked
        self.pending: list[Record] = []

    def next(self, role: str) -> Record:
        """A record that goes on from the turn's own last one, as it is in its memory."""
        record = self.world.record(role, self.author, self.leaf)
        self.leaf = record.id
        return record

    def steps(self) -> Steps:
        world, process = self.world, self.process
        while process.session is not None:
            yield
        process.session = self
        yield from acquire(world, process, "run")
        with world.pool(process) as who:
            yield from world.read(process, who)
        yield
        with world.pool(process) as who:
            world.stat(process, who)
        yield
        yield from main_thread(process, "run", self._begin())
        self._look("what to expect")
        yield
        self.active = True
        release(world, process)
        for delta in self.deltas:
            yield
            yield from self._cycle(delta)
        yield
        yield from self._cycle("end")
        process.session = None

    def _begin(self) -> Steps:
        """Reads the session, and writes the user's message; of a new session that waits for the first reply."""
        world, process, main = self.world, self.process, self.process.main
        yield from world.read(process, main)
        file = yield from world.open(process, main, os.O_RDONLY)
        if file is None:
            self.pending = [world.record("session", self.author, None), self.next("user")]
            return
        world.close(process, main, file)

        def user(leaf: bytes | None) -> list[Record]:
            self.leaf = leaf  # what it read is what is there: no fence protects it so far
            return [self.next("user")]

        yield from append(world, process, main, user, APPEND & ~os.O_CREAT)
        if self.leaf is None:
            self.pending = [world.record("session", self.author, None), self.next("user")]
        world.stat(process, main, "stat, after its own write")

    def _cycle(self, delta: str) -> Steps:
        """Check, work, refresh."""
        world, process = self.world, self.process
        yield from acquire(world, process, "run")
        yield
        with world.pool(process) as who:
            self._check(world.stat(process, who, "check"))
        if delta != "end":
            yield
            if delta in ("assistant", "toolResult"):
                yield from main_thread(process, "run", self._write(delta))
                yield
            with world.pool(process) as who:
                seen = world.stat(process, who, "refresh")
            if self.unseen:
                self.expected = seen
            self._check(seen)
            self.unseen = False
        else:
            self.active = False  # it has come to its end, and says nothing more
        yield
        release(world, process)

    def _check(self, seen: object) -> None:
        if seen != self.expected:
            raise BrokenError(f"{self.process.name} expects {self.expected} and sees {seen}: its turn dies")

    def _look(self, said: str) -> None:
        with self.world.pool(self.process) as who:
            self.expected = self.world.stat(self.process, who, said)

    def _write(self, role: str) -> Steps:
        """Its own records, by the main thread, each by an open of its own; then that one looks. A pool thread reads
        them."""
        world, process, main = self.world, self.process, self.process.main
        records, self.pending = [*self.pending, self.next(role)], []
        destroyed = world.destroyed
        for record in records:
            file = yield from world.open(process, main, APPEND)
            assert file is not None
            world.write(process, main, file, [record])
            yield
            world.close(process, main, file)
        self.expected = world.stat(process, main, "stat, after its own write")
        with world.pool(process) as who:
            data = yield from world.read(process, who)
        has_all(world, process, data, records, destroyed)

    def outside(self, role: str) -> Steps:
        """A record of the run that is written without the lock. After a message it looks; after control metadata it
        does not."""
        if (
            self.pending or not self.active
        ):  # a session that has no reply yet is written when the first one comes
            return
        yield from main_thread(self.process, "run", self._write_outside(role))

    def _write_outside(self, role: str) -> Steps:
        """Between its write and its look nothing else of the process compares what it sees: that is one piece of
        work."""
        world, process, main = self.world, self.process, self.process.main
        if not self.active:
            return
        file = yield from world.open(process, main, APPEND)
        assert file is not None
        if not self.active:
            world.close(process, main, file)
            return
        world.write(process, main, file, [self.next(role)])
        world.close(process, main, file)
        if role == "assistant":
            self.expected = world.stat(process, main, "stat, after its own write")
        else:
            self.unseen = True


def has_all(
    world: World, process: Process, data: bytes, records: list[Record], destroyed: int | None = None
) -> None:
    """Whoever has written reads it, if nobody wanted it gone."""
    for record in records:
        if record.id not in data and destroyed == world.destroyed:
            raise BrokenError(f"{process.name} does not read its own {record.id.decode()}")


def mirror(world: World, process: Process) -> Steps:
    """`chat.inject` and the delivery mirror: a header if there is no file; then look, look, read, append, under the
    lock."""
    author = f"{process.name}:mirror"
    main = process.main
    if world.stat(process, main, "is there a file?") is None:
        yield from main_thread(process, "mirror", _header(world, process, author))
        yield
    yield from acquire(world, process, "mirror")
    for _ in range(2):
        yield
        with world.pool(process) as who:
            world.stat(process, who)
    yield
    with world.pool(process) as who:
        yield from world.read(process, who)
    yield
    with world.pool(process) as who:
        yield from append(world, process, who, lambda leaf: [world.record("mirror", author, leaf)])
    yield
    release(world, process)


def _header(world: World, process: Process, author: str) -> Steps:
    main = process.main
    file = yield from world.open(process, main, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if file is not None:
        world.write(process, main, file, [world.record("session", author, None)])
        world.close(process, main, file)


def new_session(world: World, process: Process, again: bool) -> Steps:
    """`/new`: renamed away, without a lock; again: as `sessions.compact {maxLines}`, which writes a new file then."""
    yield from main_thread(process, "new", _rename(world, process, again))


def _rename(world: World, process: Process, again: bool) -> Steps:
    main = process.main
    data = yield from world.read(process, main)
    world.ids += 1
    to = b"%b.%b.%d" % (TRANSCRIPT, b"bak" if again else b"reset", world.ids)
    if not world.rename(process, main, TRANSCRIPT, to) or not again:
        return
    kept = data.splitlines(keepends=True)[-2:]
    if not kept:
        return
    file = yield from world.open(process, main, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if file is not None:
        world.write_raw(process, main, file, b"".join(kept))
        world.close(process, main, file)


def compaction(world: World, process: Process) -> Steps:
    """By the model, between turns: reads, looks, appends and reads, under the lock."""
    while process.session is not None:
        yield
    process.session = "compaction"
    yield from acquire(world, process, "compaction")
    author = f"{process.name}:compaction"
    main = process.main
    with world.pool(process) as who:
        data = yield from world.read(process, who)
    if data:
        yield from main_thread(process, "compaction", _read(world, process, main))
        with world.pool(process) as who:
            world.stat(process, who)
            yield
            yield from world.read(process, who)
        yield from main_thread(
            process,
            "compaction",
            append(
                world,
                process,
                main,
                lambda leaf: [world.record("compaction", author, leaf)],
                APPEND & ~os.O_CREAT,
            ),
        )
        yield
        with world.pool(process) as who:
            yield from world.read(process, who)
    yield
    release(world, process)
    process.session = None


def _read(world: World, process: Process, who: Caller) -> Steps:
    yield from world.read(process, who)


def main_noise(world: World, process: Process) -> Steps:
    """What the gateway's main thread does all day."""
    for _ in range(2):
        yield from main_thread(process, "gateway", _noise(world, process))
        yield


def _noise(world: World, process: Process) -> Steps:
    world.stat(process, process.main, "lstat")
    yield from world.read(process, process.main)


def outside(world: World, process: Process, role: str) -> Steps:
    """The run that is under way writes outside its lock; without a run, control metadata is the gateway's own."""
    for _ in range(6):
        turn = process.session
        if isinstance(turn, Turn) and turn.active:
            yield from turn.outside(role)
            return
        if turn is None and role == "model_change":
            break
        yield
    if process.session is None and role == "model_change":
        yield from main_thread(process, "gateway", _control(world, process))


def _control(world: World, process: Process) -> Steps:
    if process.session is not None:  # a turn has begun meanwhile
        return
    yield from append(
        world,
        process,
        process.main,
        lambda leaf: [world.record("model_change", "gateway:control", leaf)],
        APPEND & ~os.O_CREAT,
    )


def script(world: World, process: Process, what: str) -> Steps:
    """Another process does one thing to the transcript, and ends."""
    who = process.main
    work = {
        "append": _append,
        "honest": _honest,
        "held open": _held_open,
        "empty": lambda *_: world.truncate(process, who, 0),
        "truncate and rewrite": _truncate_and_rewrite,
        "rename over": _rename_over,
        "rename away": _rename_away,
        "unlink": _unlink,
        "chmod": lambda *_: world.change(process, who, mode=0o640),
        "utimes": lambda *_: world.change(process, who, atime_ns=10**18, mtime_ns=10**18),
        "chown": lambda *_: world.change(process, who, uid=1, gid=1),
        "xattr": _xattr,
        "synced": _synced,
        "rewrite slowly": _rewrite_slowly,
        "held open, not to append": _held_open_at_its_offset,
        "link": lambda *_: world.link(process, who, b"link.%d" % process.tgid),
    }[what]
    yield
    yield from work(world, process, who)
    yield
    world.kill(process)


def _append(world: World, process: Process, who: Caller) -> Steps:
    made: list[Record] = []

    def make(leaf: bytes | None) -> list[Record]:
        made.append(world.record("user", f"{process.name}-{process.tgid}", leaf))
        return made

    destroyed = world.destroyed
    yield from append(world, process, who, make)
    if made:
        yield
        views, merged = world.views, world.views.merged
        shown = world.stat(process, who)
        data = yield from world.read(process, who)
        has_all(world, process, data, made, destroyed)
        # else what had emptied the file before may be in it by now
        same = views is world.views and views.merged == merged
        if same and destroyed == world.destroyed and (shown is None or shown[1] > len(data)):
            raise BrokenError(f"{process.name} sees {shown} and reads {len(data)} bytes")


def _xattr(world: World, process: Process, who: Caller) -> Steps:
    yield from world.mark(process, who, b"1")
    yield
    yield from world.mark(process, who, b"")


def _synced(world: World, process: Process, who: Caller) -> Steps:
    """Two records, each brought to the disk."""
    file = yield from world.open(process, who, APPEND)
    if file is None:
        return
    for _ in range(2):
        header = [] if world.content(file) else [world.record("session", process.name, None)]
        record = world.record("user", f"{process.name}-{process.tgid}", world.last(file))
        world.write(process, who, file, [*header, record])
        yield
        world.sync(process, who, file)
        yield
    world.close(process, who, file)


def _honest(world: World, process: Process, who: Caller) -> Steps:
    while not world.take_lock(process, who):
        yield
    yield
    yield from _append(world, process, who)
    yield
    world.drop_lock(process, who)


def _held_open(world: World, process: Process, who: Caller) -> Steps:
    """Two appends through one descriptor, which it also reads."""
    file = yield from world.open(process, who, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    if file is None:
        return
    destroyed = world.destroyed
    made: list[Record] = []
    for _ in range(2):
        yield
        headed = world.content(file) != b""
        record = world.record("user", f"{process.name}-{process.tgid}", world.last(file))
        header = [] if headed else [world.record("session", process.name, None)]
        world.write(process, who, file, [*header, record])
        made.append(record)
        yield
        data = world.kernel.read(who, file)
        has_all(world, process, data, made, destroyed)
    world.close(process, who, file)


def _truncate_and_rewrite(world: World, process: Process, who: Caller) -> Steps:
    data = yield from world.read(process, who)
    if not data:
        return
    file = yield from world.open(process, who, os.O_WRONLY | os.O_TRUNC)
    if file is not None:
        world.write_raw(process, who, file, data)
        world.close(process, who, file)


def _rewrite_slowly(world: World, process: Process, who: Caller) -> Steps:
    """Truncates, and writes piece by piece."""
    data = yield from world.read(process, who)
    file = yield from world.open(process, who, os.O_WRONLY | os.O_TRUNC)
    if file is None:
        return
    for line in data.splitlines(keepends=True):
        yield
        world.write_raw(process, who, file, line)
    yield
    world.write(process, who, file, [world.record("user", f"{process.name}-{process.tgid}", last_id(data))])
    world.close(process, who, file)


def _held_open_at_its_offset(world: World, process: Process, who: Caller) -> Steps:
    """Appends at the end that it has seen, and goes on from there."""
    file = yield from world.open(process, who, os.O_RDWR)
    if file is None:
        return
    file.position = len(world.content(file))
    leaf = world.last(file)
    for _ in range(6):
        yield
        record = world.record("user", f"{process.name}-{process.tgid}", leaf)
        world.write(process, who, file, [record])
        leaf = record.id
    world.close(process, who, file)


def _rename_over(world: World, process: Process, who: Caller) -> Steps:
    data = yield from world.read(process, who)
    if not data:
        return
    temporary = b"new.%d" % process.tgid
    file = yield from world.open(process, who, os.O_WRONLY | os.O_CREAT, temporary)
    assert file is not None
    world.write_raw(process, who, file, data)
    record = world.record("user", f"{process.name}-{process.tgid}", last_id(data))
    world.write(process, who, file, [record])
    world.close(process, who, file)
    yield
    world.rename(process, who, temporary, TRANSCRIPT)


def _rename_away(world: World, process: Process, who: Caller) -> Steps:
    yield
    world.rename(process, who, TRANSCRIPT, b"old.%d" % process.tgid)


def _unlink(world: World, process: Process, who: Caller) -> Steps:
    yield
    world.unlink(process, who)
