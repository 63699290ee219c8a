"""The world of one enforced story: a real directory, the guard over it, a kernel between, processes, and the truth.

Every change that an actor makes is one method call here. The truth is a plain list of what was acknowledged, kept
beside the guard and never shown to it: `check_files` compares the two when all is over.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from guardfs.fence.staging import Key
from guardfs.lanes.process import ProcessTable
from guardfs.lanes.writer import Process as Program
from guardfs.lanes.writer import Writer
from guardfs.mount.caller import Caller
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import Recovered, recover
from guardfs.mount.views import Live, Views
from guardfs.policy.decide import Decider
from guardfs.policy.load import load
from guardfs.policy.model import Policy
from guardfs.state.branches import BranchStore
from guardfs.transcript.formats import PI
from tests.simulator.enforced_kernel import File, Kernel, Steps
from tests.support.direct import Direct

TRANSCRIPT = b"a.jsonl"
LOCK = b"a.jsonl.lock"
NODE = ("/usr/bin/node", ("openclaw",))
LOCAL = ("/usr/bin/node", ("openclaw-agent",))

_LINE = re.compile(rb'\{"type":"(\w+)","id":"([\w-]+)"(?:,"parentId":(?:null|"([\w-]+)"))?[^\n]*\}')
ID = re.compile(rb'"id":"([\w-]+)"')


def _policy() -> Policy:
    """OpenClaw's, enforced, and not waiting for what a gateway may still have to say after its turn."""
    shipped = load(str(Path(__file__).parents[2] / "policy/openclaw.toml"), trust=False).policy
    fence = msgspec.structs.replace(shipped.fence, linger="0s")
    return msgspec.structs.replace(shipped, mode="enforce", fence=fence)


DECIDER = Decider(_policy(), lambda kind, name: None)


class GuardDied(BaseException):
    """The daemon ends here, in the middle of a step of its journal."""


class BrokenError(AssertionError):
    """Something that must never be."""


class Record(NamedTuple):
    """author: the line of work that wrote it."""

    id: bytes
    author: str
    line: bytes


class Process:
    """A process of the story. mutex, syncing, session: who of its lanes holds the lock in its memory, has the main
    thread, runs a turn."""

    def __init__(self, tgid: int, name: str) -> None:
        self.tgid, self.name = tgid, name
        exe, args = {"gateway": NODE, "local": LOCAL}.get(
            name, ("/usr/bin/python3", ("python3", f"{name}.py"))
        )
        self.key = (tgid, 1)
        self.mutex: object | None = None
        self.syncing: object | None = None
        self.session: Any = None
        self.alive = True
        self.begun = False
        self.files: list[File] = []
        self.busy: set[int] = set()
        program = Program(tgid, 1, exe, args, ((1, "init"),), None, None, None, None)
        self.writers = {
            tid: Writer(tid, tgid, tid == tgid, name if tid == tgid else "pool", 0, 0, "ok", program)
            for tid in range(tgid, tgid + 9)
        }
        self.callers = {tid: Caller(0, 0, tid, 0o022) for tid in self.writers}

    @property
    def main(self) -> Caller:
        return self.callers[self.tgid]


class Table(ProcessTable):
    """Who the threads of the story are."""

    def __init__(self) -> None:
        self.writers: dict[int, Writer] = {}

    def writer(self, tid: int, uid: int, gid: int) -> Writer:
        return self.writers[tid]

    def close(self) -> None:
        pass


class World:
    """One transcript, and whoever works on it."""

    kernel_type = Kernel
    in_order = True  # what one author wrote is so in the file, below one header, on one path from the leaf

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directory, self.state = place / "sessions", place / "state"
        for each in (self.directory, self.state):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir(parents=True)
        self.story: list[tuple[object, ...]] = []
        self.processes: list[Process] = []
        self.table = Table()
        self.holder: Process | None = None
        self.ids = 0
        self.looks = 0
        self.deaths = 0
        self.steps_left = 0
        self.written: list[Record] = []
        self.copies: dict[bytes, int] = {}
        self.lost: set[bytes] = set()  # whoever wanted them gone saw them
        self.unsure: set[bytes] = set()  # written while the guard died, so nobody was told
        self.destroyed = 0  # operations that can make an own write vanish
        self._doomed: set[bytes] = set()
        self._umask = os.umask(0o022)  # the guard takes its callers'
        self._mount()

    # ---- the guard

    def _mount(self) -> None:
        self.guard = guard = Direct(self.directory, decider=DECIDER, processes=self.table)
        guard.log.wanted = False
        guard._never_waits = True
        judge = guard.judge
        judge.enforces = True
        store = BranchStore(str(self.state))
        merger = Merger(store, guard.below, PI)
        self.views = Views(guard, store, merger)
        self.store = store
        self._recover(merger)
        guard.views = self.views
        guard.settled = self.views.changed
        self.kernel = self.kernel_type(guard, self._doom)
        store.step = self._step

    def _recover(self, merger: Merger) -> None:
        guard = self.guard
        for found in recover(self.store, merger, guard.fds.of(guard.nodes.root), guard.below):
            self._recovered(found)

    def _recovered(self, found: Recovered) -> None:
        """What became of a branch that an earlier guard has left."""
        if found.merged is None:
            raise BrokenError(f"could not be recovered: {found.error}")

    def _step(self, name: str) -> None:
        """One step of the journal; the daemon may be meant to end there."""
        if self.steps_left:
            self.steps_left -= 1
            if not self.steps_left:
                self.story.append(("guard", "dies at", name))
                raise GuardDied(name)

    def a_second_passes(self) -> None:
        """Threads that were told to look again, and died instead, are waited for no more."""
        for staged in self.views.of.values():
            staged.intents = {
                tid: (view, when - 1_000_000_000) for tid, (view, when) in staged.intents.items()
            }

    def guard_dies(self) -> None:
        """All that it had in memory is gone, and so are the agents, whose descriptors lead nowhere. A new one takes
        over what is on the disk."""
        self.lost |= self._doomed
        self._doomed = set()
        self.steps_left = 0
        self.deaths += 1
        self._let_go()
        for process in self.processes:
            if process.begun:
                process.alive = False
        self.story.append(("guard", "is started anew"))
        self._mount()

    def _let_go(self) -> None:
        """Every descriptor of the guard is closed, as the end of a process does."""
        guard = self.guard
        self.store.step = lambda name: None
        self.views.close()
        for handle in guard.handles.values():
            os.close(handle.fd)
        for node in guard.nodes:
            guard.fds.drop(node)
        guard.fds.close()

    def end(self) -> None:
        """Nothing is left of it but its files."""
        self._let_go()
        os.umask(self._umask)

    def check_guard(self) -> None:
        """What must hold at any moment."""
        guard, views = self.guard, self.views
        if guard.internal_errors:
            raise BrokenError(f"an internal error in {guard.last_error}")
        if views.failed or views.passed or views.given_up:
            raise BrokenError("a branch could not be rebased, or a change not staged")
        judge = guard.judge
        owners = judge.machine.owners(TRANSCRIPT)
        if len(owners) > 1:
            staged = views.of.get(TRANSCRIPT)
            through = [
                each
                for each in owners
                if staged is None or staged.staging.of(Key("process", each, "")) is None
            ]
            if len(through) > 1:
                raise BrokenError(f"{through} all write through")

    # ---- processes and time

    def process(self, name: str) -> Process:
        """A new one; its id is never used again."""
        made = Process(100 + 10 * len(self.processes), name)
        self.processes.append(made)
        self.table.writers.update(made.writers)
        return made

    @contextmanager
    def pool(self, process: Process) -> Iterator[Caller]:
        """A free pool thread; it is not anybody else's until the block ends."""
        tid = next(tid for tid in range(process.tgid + 1, process.tgid + 9) if tid not in process.busy)
        process.busy.add(tid)
        try:
            yield process.callers[tid]
        finally:
            process.busy.discard(tid)

    def kill(self, process: Process) -> None:
        """It is gone; whatever it held stays."""
        process.alive = False
        self.story.append((process.name, "is gone"))
        for file in process.files:
            self.kernel.close(process.main, file)
        process.files.clear()
        effects = self.guard.judge.exited(process.key, time.monotonic_ns(), time.time_ns())
        self.views.changed(b"", effects)
        if any(view.fence.process == process.key for view in self.guard.judge.machine.fences(0)):
            raise BrokenError("a fence outlives its owner")

    def wait(self, minutes: int) -> None:
        """Time passes; the guard's clock ticks."""
        self.story.append(("", f"{minutes} minutes pass"))
        mono = time.monotonic_ns() + minutes * 60 * 10**9
        self.views.changed(b"", self.guard.judge.tick(mono, time.time_ns()))
        self.views.everything_due()

    # ---- what a process does

    def stat(self, process: Process, who: Caller, said: str = "stat") -> Any:
        """Attributes, or None; now and then the kernel asks for them once more."""
        self.looks += 1
        found = self.kernel.stat(who, TRANSCRIPT, again=self.looks % 3 == 0)
        shown = None if found is None else (found.ino, found.size, found.mtime_ns, found.ctime_ns)
        self.story.append((process.name, who.pid, said, shown))
        return shown

    def open(self, process: Process, who: Caller, flags: int, name: bytes = TRANSCRIPT) -> Steps[File | None]:
        """None: there is nothing to open."""
        try:
            file = yield from self.kernel.open(who, name, flags)
        except FileNotFoundError:
            self.story.append((process.name, who.pid, "open", name, flags, "nothing there"))
            return None
        self._met()
        what = "create" if file.created else "open to write" if flags & os.O_ACCMODE else "open to read"
        self.story.append((process.name, who.pid, what, name, "truncated" if flags & os.O_TRUNC else ""))
        process.files.append(file)
        return file

    def close(self, process: Process, who: Caller, file: File) -> None:
        process.files.remove(file)
        self.kernel.close(who, file)

    def read(self, process: Process, who: Caller) -> Steps[bytes]:
        """The whole transcript; b"" where there is none."""
        file = yield from self.open(process, who, os.O_RDONLY)
        if file is None:
            return b""
        data = self.kernel.read(who, file)
        self.story.append((process.name, who.pid, "read", len(data)))
        self.close(process, who, file)
        return data

    def record(self, role: str, author: str, parent: bytes | None) -> Record:
        """A new one."""
        self.ids += 1
        name = b"%08x" % self.ids
        if role == "mirror":
            name = b"00000000-0000-4000-8000-%012x" % self.ids
        above = b"null" if parent is None else b'"%b"' % parent
        if role == "session":
            return Record(name, author, b'{"type":"session","id":"%b","version":3}\n' % name)
        head = b'{"type":"%b","id":"%b","parentId":%b'
        if role in ("model_change", "compaction"):
            return Record(name, author, head % (role.encode(), name, above) + b"}\n")
        more = b',"provider":"openclaw","model":"gateway-injected"' if role == "mirror" else b""
        role = "assistant" if role == "mirror" else role
        tail = b',"message":{"role":"%b"%b}}\n' % (role.encode(), more)
        return Record(name, author, head % (b"message", name, above) + tail)

    def write(
        self, process: Process, who: Caller, file: File, records: list[Record], at: int | None = None
    ) -> None:
        """One write(2); acknowledged when it returns. at: pwrite(2)."""
        data = b"".join(record.line for record in records)
        ids = [record.id for record in records]
        gone = self._unlinked(file)
        self.unsure.update(ids)
        self.story.append((process.name, who.pid, "write", ids, "" if at is None else at))
        self.kernel.write(who, file, data, at)
        self.unsure.difference_update(ids)
        self.written += records
        for name in ids:
            self.copies[name] = self.copies.get(name, 0) + 1
        if gone and self._unlinked(file):
            self.lost.update(ids)

    def write_raw(
        self, process: Process, who: Caller, file: File, data: bytes, at: int | None = None
    ) -> None:
        """The same of bytes that were read before: the records in them are copied."""
        ids = ID.findall(data)
        self.story.append((process.name, who.pid, "write copies of", ids))
        self.unsure.update(ids)
        self.kernel.write(who, file, data, at)
        self.unsure.difference_update(ids)
        for name in ids:
            self.copies[name] = self.copies.get(name, 0) + 1

    def _unlinked(self, file: File) -> bool:
        handle = self.guard.handles[file.handle]
        return handle.live is None and os.fstat(handle.fd).st_nlink == 0

    def last(self, file: File) -> bytes | None:
        """Id of the last record of what *file* shows."""
        return last_id(self.content(file))

    def content(self, file: File) -> bytes:
        """What a read of the open file would give, without a request."""
        handle = self.guard.handles[file.handle]
        if handle.live is not None:
            return bytes(handle.live.read(1 << 20, 0))
        return _whole(b"/proc/self/fd/%d" % handle.fd)

    def shown(self, node_id: int) -> bytes:
        """What a node holds, without a request."""
        node = self.guard.nodes.get(node_id)
        if node is None:
            return b""
        if isinstance(node.view, Live):
            return bytes(node.view.read(1 << 20, 0))
        try:
            return _whole(self.guard.fds.path(node))
        except OSError:
            return b""

    def _doom(self, node_id: int) -> None:
        """The content of this node is about to be destroyed: nobody can want to keep what the destroyer sees."""
        self._doomed = set(ID.findall(self.shown(node_id)))

    def truncate(self, process: Process, who: Caller, size: int) -> Steps[None]:
        done = yield from _unless_gone(self.kernel.change(who, TRANSCRIPT, size=size))
        self._met()
        self.story.append((process.name, who.pid, "truncate to", size, done))

    def change(self, process: Process, who: Caller, **values: int) -> Steps[None]:
        """chmod, utimes."""
        done = yield from _unless_gone(self.kernel.change(who, TRANSCRIPT, **values))
        self.story.append((process.name, who.pid, "change", values, done))

    def sync(self, process: Process, who: Caller, file: File) -> None:
        """fsync(2)."""
        self.kernel.fsync(who, file)
        self.story.append((process.name, who.pid, "fsync"))

    def mark(self, process: Process, who: Caller, value: bytes) -> Steps[None]:
        """setxattr(2), and removexattr(2) where *value* is empty."""
        done = yield from _unless_gone(self.kernel.mark(who, TRANSCRIPT, value))
        self.story.append((process.name, who.pid, "attribute", value, done))

    def link(self, process: Process, who: Caller, to: bytes) -> Steps[None]:
        done = yield from _unless_gone(self.kernel.link(who, TRANSCRIPT, to))
        self.story.append((process.name, who.pid, "link", to, done))

    def unlink(self, process: Process, who: Caller, name: bytes = TRANSCRIPT) -> None:
        done = self.kernel.unlink(who, name)
        self._met()
        self.destroyed += 1  # somebody may have opened it who has not written yet
        self.story.append((process.name, who.pid, "unlink", name, done))

    def rename(self, process: Process, who: Caller, name: bytes, to: bytes) -> bool:
        done = self.kernel.rename(who, name, to)
        self._met()
        self.destroyed += 1
        self.story.append((process.name, who.pid, "rename", name, to, done))
        return done

    # ---- the lock file

    def take_lock(self, process: Process, who: Caller) -> bool:
        """Tries to create it; a dead holder's is removed first."""
        if self.holder is not None and not self.holder.alive:
            self.holder = None
            self.kernel.unlink(who, LOCK)
            self.story.append((process.name, who.pid, "removes a dead holder's lock"))
            return False
        file = self.kernel.make(who, LOCK)
        if file is None:
            return False
        self.kernel.close(who, file)
        self.holder = process
        self.story.append((process.name, who.pid, "lock"))
        return True

    def drop_lock(self, process: Process, who: Caller) -> None:
        """Removes it if it is still there and ours."""
        self.kernel.stat(who, LOCK)
        if self.holder is process:
            self.holder = None
            self.kernel.unlink(who, LOCK)
            self.story.append((process.name, who.pid, "unlock"))

    def _met(self) -> None:
        if self._doomed:
            self.lost |= self._doomed
            self._doomed = set()
            self.destroyed += 1

    # ---- the truth

    def check_files(self) -> None:
        """Everything that was acknowledged is there, once, in order, and on one path."""
        found: dict[bytes, int] = {}
        aside: set[bytes] = set()
        authors = {record.id: (record.author, number) for number, record in enumerate(self.written)}
        inodes: set[int] = set()
        for entry in sorted(os.scandir(self.directory), key=lambda entry: entry.name):
            st = entry.stat()
            if entry.name == "a.jsonl.lock" or st.st_ino in inodes:
                continue
            inodes.add(st.st_ino)
            if "guardfs" in entry.name:
                raise BrokenError(f"{entry.name} is left")
            ids = self._check_file(entry.name, _whole(os.fsencode(entry.path)), authors)
            if ".conflict." in entry.name or entry.name.startswith("link."):
                aside.update(ids)
            else:
                for name in ids:
                    found[name] = found.get(name, 0) + 1
        carried = self.deaths or any(
            notice.fields.get("carried") for notice in self.guard.log.notices("ghost")
        )
        for name, times in found.items():  # what an owner wrote to a file that lost its name stays there, too
            if times > self.copies.get(name, 0) + (name in self.unsure) + bool(carried):
                raise BrokenError(f"{name.decode()} is there {times} times")
        for record in self.written:
            if b'"session"' in record.line[:18] or record.id in self.lost:
                continue
            if record.id not in found and record.id not in aside:
                raise BrokenError(f"{record.id.decode()} by {record.author} was acknowledged, and is lost")

    def _check_file(self, name: str, data: bytes, authors: dict[bytes, tuple[str, int]]) -> list[bytes]:
        ids: list[bytes] = []
        parents: dict[bytes, bytes | None] = {}
        headers = 0
        orders: dict[str, int] = {}
        for line in data.splitlines():
            match = _LINE.fullmatch(line)
            if match is None:
                if line:
                    raise BrokenError(f"{name}: not a record: {line!r}")
                continue
            kind, record, parent = match.groups()
            if kind == b"session":
                headers += 1
                continue
            if record in parents:
                raise BrokenError(f"{name}: {record.decode()} is there twice")
            ids.append(record)
            parents[record] = parent
            author, number = authors.get(record, ("", -1))
            if self.copies.get(record, 0) > 1:
                continue  # it stands where whoever copied it has put it
            if number >= 0 and orders.get(author, -1) > number and self.in_order:
                raise BrokenError(f"{name}: {record.decode()} by {author} is out of order")
            orders[author] = number
        if headers > 1 and self.in_order:
            raise BrokenError(f"{name}: {headers} headers")
        at: bytes | None = ids[-1] if ids else None
        way = set()
        while at is not None and at in parents and at not in way:
            way.add(at)
            at = parents[at]
        off = [each.decode() for each in ids if each not in way]
        if off and self.in_order:
            raise BrokenError(f"{name}: {', '.join(off)} cannot be reached from the leaf")
        return ids


def _unless_gone(call: Steps[bool]) -> Steps[bool]:
    """False also where the file went between the lookup and the rest."""
    try:
        return (yield from call)
    except FileNotFoundError:
        return False


def _whole(path: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def last_id(data: bytes) -> bytes | None:
    """Id of the last record in *data*; the header is nobody's parent."""
    for line in reversed(data.splitlines()):
        match = _LINE.fullmatch(line)
        if match is not None and match[1] != b"session":
            return match[2]
    return None
