"""Keeps, step by step, what the next daemon needs: the face of the memory towards the operations.

Nothing here may fail an operation. Where the memory is full, or something goes wrong, it is declared unreadable: the
mount goes on, and should this daemon die, the next one mounts anew.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyfuse3

from guardfs.audit.event import Kind as NameKind
from guardfs.mount.layout import unique_of
from guardfs.mount.memory.again import Again
from guardfs.mount.memory.deposit import Deposit
from guardfs.mount.memory.fences import FenceLedger
from guardfs.mount.memory.nodes import DIRECT_IO, KEEP_CACHE, NodeLedger
from guardfs.mount.memory.requests import CHANGING, OPERATIONS, RESENT, Left, Running, error_of, now_word
from guardfs.mount.memory.store import Record, Store, Word
from guardfs.mount.memory.views import ViewLedger
from guardfs.mount.operations.parts import UNSEEN, Held, Later

if TYPE_CHECKING:
    from guardfs.mount.filesystem import FileSystem
    from guardfs.mount.nodes import Node
    from guardfs.mount.operations.parts import Handle

log = logging.getLogger("guardfs.memory")

_CODES = {name: number for number, name in enumerate(OPERATIONS)}
_EFFECTS = frozenset(
    "look create mknod symlink truncate attributes xattr link unlink rename write open".split()
)
"""Operations, as the log calls them, that fences may want to know of."""


class Keeper:
    """left: the request that an earlier daemon was at, until it has come again. later: those that waited in a thread
    then, with their results. opened: open files by the request that opened them. finished: where those are kept that a
    thread is through with. broken: why nothing is kept any more.
    """

    def __init__(self, store: Store, filesystem: FileSystem, deposit: Deposit | None = None) -> None:
        self.store = store
        self.deposit = deposit
        if deposit is not None:
            deposit.needed = self._needed
        self._once: dict[int, int] = {}
        self._filesystem = filesystem
        self.nodes = NodeLedger(store)
        self.running = Running(store)
        self.fences = FenceLedger(store, filesystem.judge.machine)
        self.views = ViewLedger(store)
        self.left: Left | None = None
        self.later: dict[int, tuple[int, int]] = {}
        self.opened: dict[int, tuple[int, Handle, int]] = {}
        self.finished: list[int] = []
        self._size_before = -1
        self.resent = 0
        self.broken = ""
        self._before: dict[str, Callable[..., tuple[int, ...]] | None] = {
            **dict.fromkeys(OPERATIONS),
            "write": self._before_write,
            "rename": self._before_rename,
            "unlink": self._before_removal,
            "rmdir": self._before_removal,
            **dict.fromkeys(("create", "mkdir", "mknod", "symlink", "link"), self._before_making),
        }

    def gave_up(self, where: str) -> None:
        """Called from an except block: nothing is kept any more."""
        if self.broken:
            return
        self.broken = where
        self.store.words[Word.FORMAT] = 0
        filesystem = self._filesystem
        filesystem.keeper = filesystem.nodes.ledger = None
        filesystem.judge.machine.journal = None
        filesystem.internal_error(f"memory for the next daemon ({where})")
        log.error("should this daemon die, the directory will be mounted anew")

    # ---- a request

    def answer(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """What *method* answers, which is the operation *name*; the next daemon knows of it before the caller does."""
        changing = name in CHANGING
        running = self.running
        running.began = False
        unique = 0
        if changing or self.left is not None:
            unique = unique_of(self._filesystem.request)
            if unique & RESENT:
                return self._resent(name, method, args, unique)
            if changing:
                try:
                    before = self._before[name]
                    if before is None:
                        running.begin(_CODES[name], unique)
                    else:
                        running.begin(_CODES[name], unique, *before(*args))
                except Exception:
                    self.gave_up("request")
                    return method(*args)
        return self._acted(method, args, unique)

    def _acted(self, method: Callable[..., Any], args: tuple[Any, ...], unique: int) -> Any:
        try:
            result = method(*args)
        except OSError as error:
            self.done(-(error.errno or errno.EIO))
            raise
        except pyfuse3.FUSEError as error:
            self.done(-error.errno)
            raise
        except Exception:
            self.done(-errno.EIO)
            raise
        if result.__class__ is Held:
            result.unique = unique
            self.running.began = False
            if self.nodes.changed:
                self.now()
        elif result.__class__ is Later:
            if result.value is not None and unique and not self.broken:
                self._later(result, unique)
        else:
            self.done(result if result.__class__ is int else 0)
        return result

    def _later(self, later: Any, unique: int) -> None:
        try:
            address = self.running.later(unique & ~RESENT, later.value)
        except Exception:
            self.gave_up("later")
            return
        later.answered = lambda: self.finished.append(address)
        self.done(later.value)

    def done(self, result: int) -> None:
        """The request at hand is about to be answered."""
        if self.broken:
            return
        try:
            views = self._filesystem.views
            if views is not None and views.touched:
                self.views.keep(views)
            if self.nodes.changed:
                self.nodes.keep()
            if self.running.began:
                self.running.done(result)
        except Exception:
            self.gave_up("result")

    def resumed(self, name: str, unique: int) -> None:
        """A request that has waited is acted upon now."""
        if not self.broken:
            self.running.begin(_CODES[name], unique)

    def answered(self) -> None:
        """Those that have waited in a thread are answered, as far as they are `finished`."""
        while self.finished:
            self.running.answered(self.finished.pop())

    # ---- what it was like before

    def _before_write(self, number: int, offset: int, data: bytes) -> tuple[int, ...]:
        handle = self._filesystem.handles.get(number)
        if handle is None:
            return (number, 0, 0, 0)
        seen = handle.node.seen
        known = seen is not None and handle.follows < 0
        size = seen[0] if known else self._filesystem.below.fstat(handle.fd).st_size  # type: ignore[index]
        return (number, size, handle.follows + 1, int(handle.torn))

    def size_before(self, size: int) -> int:
        """Bytes of the file before the write that comes again; *size* where nobody knows."""
        return self._size_before if self._size_before >= 0 else size

    def _as_before(self, left: Left) -> None:
        """What a write that comes again may have changed of its handle is as it was."""
        handle = self._filesystem.handles.get(left.before[0])
        if handle is None:
            return
        _, self._size_before, follows, torn = left.before[:4]
        handle.follows, handle.torn = follows - 1, bool(torn)

    def _before_making(self, *args: Any) -> tuple[int, ...]:
        return (now_word(),)

    def _inode(self, parent_id: int, name: bytes) -> int:
        nodes = self._filesystem.nodes
        parent = nodes.get(parent_id)
        node = None if parent is None else nodes.entry(parent, name)
        return 0 if node is None else node.ino

    def _before_removal(self, parent_id: int, name: bytes, ctx: Any) -> tuple[int, ...]:
        return (self._inode(parent_id, name),)

    def _before_rename(self, parent_id: int, name: bytes, to_id: int, to: bytes, *_: Any) -> tuple[int, ...]:
        return (self._inode(parent_id, name), self._inode(to_id, to))

    def now(self) -> None:
        """What is known of views is to be kept before anything is done."""
        views = self._filesystem.views
        if views is None or self.broken:
            return
        try:
            self.views.keep(views)
            self.nodes.keep()
        except Exception:
            self.gave_up("views")

    def handle(self, handle: Handle, *, keep_cache: bool, direct_io: bool) -> None:
        """A file was opened."""
        try:
            bits = (KEEP_CACHE if keep_cache else 0) | (DIRECT_IO if direct_io else 0)
            self.nodes.next_handle(handle.number + 1)
            self.nodes.opened(handle.number, handle, bits, self.running.unique & ~RESENT)
        except Exception:
            self.gave_up("open file")

    def losing(self, node: Node) -> None:
        """*node*, which is open, may lose its last name."""
        if self.deposit is None:
            return
        try:
            self.deposit.put(node.id, node.opened[-1])
        except OSError as error:  # it is only lost with this daemon
            log.warning("%s: an open file without a name: %s", os.fsdecode(node.path()), error.strerror)

    def _needed(self, node_id: int) -> bool:
        node = self._filesystem.nodes.get(node_id)
        return node is not None and bool(node.opened) and not node.names

    def only(self, kind: int, data: bytes) -> None:
        """Keep *data* as the one record of *kind*."""
        if self.broken:
            return
        try:
            self._once[kind] = self.store.replace(self._once.get(kind, 0), kind, data)
        except Exception:
            self.gave_up("what is kept once")

    def adopt(self, kind: int, records: list[Record]) -> bytes | None:
        """The one record of *kind* among *records*, oldest first; None if there is none."""
        for record in records[:-1]:
            self.store.free(record.address)
        if not records:
            return None
        self._once[kind] = records[-1].address
        return records[-1].data

    # ---- a request that comes again

    def _resent(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], unique: int) -> Any:
        self.resent += 1
        number = unique & ~RESENT
        waited = self.later.pop(number, None)
        if waited is not None:
            return self._wait_again(args, *waited)
        left = self.left
        if left is None or left.unique != number or left.op != name:
            if name in CHANGING:
                self._drop_opened(number)
                self.running.begin(_CODES[name], unique)
            return self._acted(method, args, unique)
        self.left = None
        log.info(
            "%s was at hand when the last daemon ended: %s", name, "done" if left.done else "to be judged"
        )
        if left.done:
            return self._told(name, method, args, left)
        self._drop_opened(number)
        filesystem = self._filesystem
        self.running.begin(_CODES[name], unique, *left.before)
        below, filesystem.below = filesystem.below, Again(filesystem.below, left)
        filesystem.again = True
        if name == "write":
            self._as_before(left)
        try:
            return self._acted(method, args, unique)
        finally:
            filesystem.below, filesystem.again = below, False
            self._size_before = -1

    def _wait_again(self, args: tuple[Any, ...], address: int, result: int) -> Any:
        """It was written, and was being brought to the disk."""
        handle = self._filesystem.handles.get(args[0])
        bring = self._filesystem.below.fsync
        live = None if handle is None else handle.live

        def work() -> None:
            if live is not None:
                live.file.sync()
            elif handle is not None:
                bring(handle.fd)

        again = Later(work, lambda _: result)
        again.answered = lambda: self.finished.append(address)
        return again

    def _drop_opened(self, unique: int) -> None:
        """What this request has opened the kernel does not know of: it is opened once more."""
        found = self.opened.pop(unique, None)
        if found is not None:
            self._filesystem.release(found[0])

    def _told(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], left: Left) -> Any:
        """It was done, and noted; its caller gets the answer."""
        error = error_of(left.result)
        if error is not None:
            raise error
        filesystem = self._filesystem
        before, filesystem.mark = filesystem.mark, UNSEEN
        try:
            if name == "write":
                return left.result
            if name in ("open", "create"):
                return self._opened(name, method, args, left)
            if name in ("mkdir", "mknod", "symlink"):
                return filesystem.lookup(args[0], args[1], args[-1])
            if name == "link":
                return filesystem.lookup(args[1], args[2], args[-1])
            if name == "setattr":
                return filesystem.getattr(args[0], args[-1])
            return method(*args) if name == "lookup" else None
        finally:
            filesystem.mark = before

    def _opened(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], left: Left) -> Any:
        found = self.opened.pop(left.unique, None)
        if found is None:
            return method(*args)
        number, handle, bits = found
        info = pyfuse3.FileInfo(
            fh=number, keep_cache=bool(bits & KEEP_CACHE), direct_io=bool(bits & DIRECT_IO)
        )
        if name == "open":
            return info
        return info, self._filesystem.getattr(handle.node.id, args[-1])

    # ---- notes

    def note(self, item: Any) -> None:
        """*item* is to be told to fences, branches and log once its caller is answered."""
        try:
            if item.op not in _EFFECTS or item.kind is NameKind.OTHER or not item.fenced:
                return
            plain = item.kind is NameKind.TRANSCRIPT and item.to is None and not item.mark.staged
            if plain and not self._filesystem.judge.machine.watches(item.path):
                return
            running = self.running
            if not running.began:
                running.begin(_CODES["lookup"], unique_of(self._filesystem.request))
            writer, mark, more = item.writer, item.mark, item.more
            process = writer.process
            item.serial = running.note(
                (
                    running.next,
                    running.unique & ~RESENT,
                    item.op,
                    item.begin,
                    item.kind,
                    item.path,
                    item.errno,
                    0 if item.node is None else item.node.id,
                    item.after,
                    writer.tid,
                    writer.tgid,
                    0 if process is None else process.start,
                    writer.uid,
                    writer.gid,
                    item.to,
                    item.operation,
                    item.before,
                    item.replaced,
                    item.writes,
                    item.truncates,
                    mark.verdict,
                    mark.staged,
                    mark.side,
                    mark.aside,
                    mark.branch,
                    more.get("offset"),
                    more.get("size"),
                    bool(more.get("append")),
                )
            )
        except Exception:
            self.gave_up("note")

    def settling(self, serial: int) -> None:
        """The note *serial* is told to the fences now."""
        self.fences.serial = serial

    def settled(self, serial: int) -> None:
        """They know of it."""
        if self.broken:
            return
        try:
            views = self._filesystem.views
            if views is not None and views.touched:
                self.views.keep(views)
            self.running.settled(serial)
        except Exception:
            self.gave_up("settling")
