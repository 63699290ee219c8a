"""Puts together again what an earlier daemon on the same mount knew. Where a piece cannot be had, what is safe is done
without it, and it is named."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from guardfs.audit.event import Kind as NameKind
from guardfs.fence.fingerprint import Fingerprint
from guardfs.lanes.writer import Process, Writer
from guardfs.mount.memory.fences import place_of
from guardfs.mount.memory.fences import restore as restore_place
from guardfs.mount.memory.keeper import Keeper
from guardfs.mount.memory.nodes import (
    SETTLED,
    TORN,
    HandleFacts,
    NodeFacts,
    handle_of,
    node_of,
)
from guardfs.mount.memory.requests import Left, Note
from guardfs.mount.memory.restore_views import restore_views
from guardfs.mount.memory.store import Kind, Record, Store, Word
from guardfs.mount.memory.views import StagedKept, kept_of
from guardfs.mount.nodes import ROOT_ID, Node
from guardfs.mount.operations.names import open_flags
from guardfs.mount.operations.parts import Handle, Mark, Noted

if TYPE_CHECKING:
    from guardfs.mount.filesystem import FileSystem

log = logging.getLogger("guardfs.memory")


class Restored(msgspec.Struct):
    """What was put together again. lost: what could not be, in words."""

    nodes: int = 0
    handles: int = 0
    fences: int = 0
    transcripts: int = 0
    branches: int = 0
    notes: int = 0
    lost: list[str] = msgspec.field(default_factory=list)


def records_of(store: Store) -> dict[int, list[Record]]:
    """All that is kept, by kind, oldest first. ValueError where that cannot be read."""
    found: dict[int, list[Record]] = {}
    for record in store.scan():
        found.setdefault(record.kind, []).append(record)
    for records in found.values():
        records.sort(key=lambda record: record.order)
    return found


class Restorer:
    """Fills *filesystem* and its views; in order: `tables`, `fences`, `views`, `files`, `settle`."""

    def __init__(self, filesystem: FileSystem, keeper: Keeper, records: dict[int, list[Record]]) -> None:
        self._filesystem = filesystem
        self._keeper = keeper
        self._held: dict[int, int] = {}
        self._records = records
        self._seen: dict[bytes, int] = {}
        self.left: Left | None = keeper.running.left()
        self.found = Restored()

    def _guarded(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            log.exception("%s cannot be put together again", what)
            self.found.lost.append(f"{what}: {error!r}")

    # ---- nodes and handles

    def tables(self) -> None:
        """Nodes, and open files as far as they need no descriptor."""
        words, nodes = self._keeper.store.words, self._filesystem.nodes
        facts: dict[int, NodeFacts] = {}
        for record in self._records.get(Kind.NODE, ()):
            each = node_of(record)
            if each.id in facts:
                self._keeper.store.free(facts[each.id].address)
            facts[each.id] = each
        for each in facts.values():
            node = Node(each.id, each.dev, each.ino, each.kind, is_dir=each.is_dir)
            node.nlookup, node.kept = each.references, each.address
            nodes.take_over(node, words[Word.NODE], of_inode=each.of_inode)
        for each in sorted(facts.values(), key=lambda each: each.order):
            for parent_id, name in each.names:
                parent = nodes.get(parent_id)
                if parent is not None:
                    nodes.known_as(nodes[each.id], parent, name, entry=each.of_inode)
        self.found.nodes = len(facts)
        self._filesystem.next_handle = max(1, words[Word.HANDLE])
        for record in self._records.get(Kind.HANDLE, ()):
            self._handle(handle_of(record))

    def _handle(self, facts: HandleFacts) -> None:
        filesystem, keeper = self._filesystem, self._keeper
        node = filesystem.nodes.get(facts.node)
        if node is None or facts.number in filesystem.handles:
            keeper.store.free(facts.address)
            return
        handle = filesystem.handles[facts.number] = Handle(facts.number, -1, node, facts.flags)
        handle.kept = facts.address
        handle.settled, handle.torn = facts.bits & SETTLED != 0, facts.bits & TORN != 0
        handle.follows, handle.own_from = facts.follows, facts.own_from
        if facts.unique:
            keeper.opened[facts.unique] = facts.number, handle, facts.bits

    def files(self) -> None:
        """Open what was open, where the views have not."""
        filesystem = self._filesystem
        if self._keeper.deposit is not None:
            self._held = self._keeper.deposit.all()
        for number, handle in list(filesystem.handles.items()):
            if handle.fd < 0:
                try:
                    handle.fd = self._open(handle)
                except OSError as error:
                    path = os.fsdecode(handle.node.path())
                    self.found.lost.append(f"open file {path}: {error.strerror or error}")
                    del filesystem.handles[number]
                    self._keeper.nodes.closed(handle)
                    continue
            handle.node.opened.append(handle.fd)
            self._look(handle.node)
            self.found.handles += 1
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    def _open(self, handle: Handle) -> int:
        filesystem, node = self._filesystem, handle.node
        kept = self._held.get(node.id)
        if kept is not None:
            flags = (open_flags(handle.flags) & ~os.O_NOFOLLOW) | os.O_CLOEXEC
            return os.open(b"/proc/self/fd/%d" % kept, flags)
        return filesystem._open_below(node, handle.flags)

    def _look(self, node: Node) -> None:
        """Note what a file is like, so that what happens to it from now on is seen."""
        if node.kind is NameKind.OTHER or node.seen is not None or node.view is not None:
            return
        if self.left is not None and not self.left.done and self.left.op == "write":
            handle = self._filesystem.handles.get(self.left.before[0])
            if handle is not None and handle.node is node:
                return  # it may have been written to, and nobody was told
        try:
            self._filesystem.left(node, self._filesystem.stat_node(node))
        except OSError:
            pass

    # ---- fences, views

    def fences(self) -> None:
        """What the fence machine knew."""
        machine, keeper = self._filesystem.judge.machine, self._keeper
        for record in self._records.get(Kind.PLACE, ()):
            name = "a fence"

            def one(record: Record = record) -> None:
                kept = place_of(record)
                self._seen[kept.transcript] = restore_place(machine, kept)
                keeper.fences.adopt(kept.transcript, record.address)

            self._guarded(name, one)
        self.found.fences, self.found.transcripts = machine.open_fences, machine.places
        machine.journal = keeper.fences

    def views(self) -> None:
        """Branches, and who sees what."""
        views = self._filesystem.views
        if views is None:
            return
        undo = None
        left = self.left
        if left is not None and not left.done and left.branch:
            undo = left.branch, left.branch_size
        kept: dict[bytes, tuple[StagedKept, Record]] = {}
        for record in self._records.get(Kind.STAGED, ()):
            staged = kept_of(record)
            if staged.transcript in kept:
                self._keeper.store.free(kept[staged.transcript][1].address)
            kept[staged.transcript] = staged, record
        for transcript, (_, record) in kept.items():
            self._keeper.views.adopt(transcript, record)
        try:
            self.found.branches = restore_views(
                views, self._filesystem, [staged for staged, _ in kept.values()], undo, self.found.lost
            )
        except Exception as error:  # what they hold is in the journal, for the next mount
            log.exception("views cannot be put together again")
            self.found.lost.append(f"views: {error!r}")
        for transcript in self._filesystem.judge.machine.transcripts():
            node = self._entry(transcript)
            if node is not None:
                self._look(node)

    def _entry(self, path: bytes) -> Node | None:
        nodes = self._filesystem.nodes
        node: Node | None = nodes.root
        for part in path.split(b"/"):
            node = None if node is None else nodes.entry(node, part)
        return node

    # ---- what was answered, and not told of yet

    def settle(self) -> None:
        """Tell fences, branches and log of what the callers have been told already."""
        keeper, filesystem = self._keeper, self._filesystem
        for record in self._records.get(Kind.LATER, ()):
            unique, result = (int.from_bytes(record.data[at : at + 8], "little") for at in (0, 8))
            keeper.later[unique] = record.address, result
        for note in keeper.running.notes():
            if self.left is not None and note.unique == self.left.unique and not self.left.done:
                continue  # it comes again, and is noted then
            if self._known(note):
                continue
            self._guarded("an event", lambda note=note: filesystem.noted.append(self._item(note)))  # type: ignore[misc]
            self.found.notes += 1
        filesystem.settle()
        keeper.running.forget()
        keeper.left = self.left

    def _known(self, note: Note) -> bool:
        machine = self._filesystem.judge.transcript_of(note.path, NameKind(note.kind))
        return note.serial <= self._seen.get(machine, 0)

    def _item(self, note: Note) -> Any:
        filesystem = self._filesystem
        node = filesystem.nodes.get(note.node)
        data = None
        if note.op == "write" and not note.errno and note.kind != NameKind.OTHER:
            data = self._written(note, node)
        more: dict[str, Any] = {}
        if note.offset is not None:
            more["offset"] = note.offset
        if note.size is not None:
            more["size"] = note.size
        if note.append:
            more["append"] = True

        def state(values: tuple[int, int, int, int, int] | None) -> Fingerprint | None:
            return None if values is None else Fingerprint(*values)

        return Noted(
            note.op,
            note.begin,
            0,
            NameKind(note.kind),
            note.path,
            note.errno,
            node,
            state(note.after),
            self._writer(note),
            note.to,
            data,
            note.operation,  # type: ignore[arg-type]
            state(note.before),
            state(note.replaced),
            note.writes,
            True,
            note.truncates,
            filesystem.audit.wants(note.op, NameKind(note.kind)),
            Mark(note.verdict, note.staged, note.side, note.aside, note.branch),  # type: ignore[arg-type]
            more,
            note.serial,
        )

    def _writer(self, note: Note) -> Writer:
        """Who it was. The caller has its answer, so its thread may be gone, and its process too."""
        processes = self._filesystem.processes
        for tid in (note.tid, note.tgid):
            found = processes.writer(tid, note.uid, note.gid)
            process = found.process
            if process is not None and (process.tgid, process.start) == (note.tgid, note.start):
                return msgspec.structs.replace(found, tid=note.tid, main=note.tid == note.tgid)
        gone = Process(note.tgid, note.start, None, (), (), None, None, None, None)
        return Writer(
            note.tid,
            note.tgid,
            note.tid == note.tgid,
            "?",
            note.uid,
            note.gid,
            "exited",
            gone if note.start else None,
        )

    def _written(self, note: Note, node: Node | None) -> bytes | None:
        """What a write has written, from where it stands now."""
        filesystem, size = self._filesystem, note.size or 0
        try:
            if note.branch and filesystem.views is not None:
                for staged in filesystem.views.of.values():
                    if note.branch in staged.lives:
                        return staged.lives[note.branch].read(size, note.offset or 0)
                return None
            if node is None:
                return None
            fd = filesystem.open_below(filesystem.fds.path(node), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return os.pread(fd, size, note.offset or 0)
            finally:
                os.close(fd)
        except OSError:
            return None


def directories(filesystem: FileSystem) -> list[Node]:
    """The directories that the kernel knows, but for the root."""
    return [node for node in filesystem.nodes if node.is_dir and node.id != ROOT_ID and node.names]
