"""What all operations share: tables, the clock, classification, telling the log, noticing changes by unseen
writers.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from guardfs.audit.event import Kind, Notice, Operation
from guardfs.audit.log import AuditLog
from guardfs.fence.effects import Effect
from guardfs.fence.feed import Happening
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.lockfile import is_kept
from guardfs.lanes.process import ProcessTable
from guardfs.lanes.writer import Writer
from guardfs.mount.backing import Backing
from guardfs.mount.caching import Timeouts, timeouts
from guardfs.mount.caller import Caller, caller_of
from guardfs.mount.counters import Counters
from guardfs.mount.descriptors import Descriptors
from guardfs.mount.layout import Entry
from guardfs.mount.lists import Begun
from guardfs.mount.nodes import Node, NodeTable, Seen, seen_of
from guardfs.mount.operations.parts import UNMARKED, UNSEEN, Context, Handle, Noted, Watcher
from guardfs.policy.judge import Judge, Judgement
from guardfs.policy.model import OperationClass
from guardfs.transcript.formats import FORMATS, Format
from guardfs.transcript.names import NameRules
from guardfs.transcript.records import Assembler, RecordMeta

if TYPE_CHECKING:
    from guardfs.mount.memory.keeper import Keeper

log = logging.getLogger("guardfs.mount")

now = time.time_ns

MAX_RECORDS = 1000
"""Records described in one event; a write of 128 KiB of ``{}`` lines would otherwise make a line of
megabytes."""

_EXPECTED_NAMES = 8192
_EXPECTED_NS = 5_000_000_000
"""How long the report of what the guard itself has done may take; later it must be about another's doing."""


def _refuse(*_: object) -> NoReturn:
    """Nobody listens to operators."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


class Core:
    """State and helpers; the families of operations add the operations."""

    def __init__(
        self,
        *,
        root_fd: int,
        descriptors: int,
        names: NameRules,
        judge: Judge,
        processes: ProcessTable,
        audit: AuditLog,
        audit_required: bool = False,
        in_memory: bool = False,
        below: Backing | None = None,
    ) -> None:
        self.below = below or Backing()
        root = os.fstat(root_fd)
        self.nodes = NodeTable(root)
        self.nodes.root.seen = seen_of(root)
        self.keeper: Keeper | None = None
        self.again = False  # an earlier daemon may have acted upon the request that is being answered
        self.fds = Descriptors(self.nodes.root, root_fd, descriptors)
        self.kind = names.kind
        self.judge = judge
        self.noted: deque[Noted] = deque()
        self.settles_later = False  # set by who calls `settle` after each request
        self.records = Assembler(format=FORMATS[judge.decider.policy.transcripts.format])
        self.registry_changed: Callable[[], None] = lambda: None
        self.fences_changed: Callable[[Writer | None, tuple[Effect, ...]], None] = lambda writer, effects: (
            None
        )
        self.processes = processes
        self.audit = audit
        self.audit_required = audit_required
        self._never_waits = in_memory  # what lies below is memory, so no read of it blocks
        self.watcher: Watcher | None = None
        self.handles: dict[int, Handle] = {}
        self.lists = Begun()
        self.next_handle = 1
        self.reply = Entry()
        self.request: object = None  # pyfuse3's container of the request that is being answered
        self.request_flags = 0  # of a setattr or setxattr: FUSE_SET_ATTR_* or XATTR_*
        self.operations: dict[str, int] = {}
        self.counters = Counters(judge.decider.lane_names)
        self.internal_errors = 0
        self.last_error = ""
        self.unseen_changes = 0
        self._expected: dict[tuple[int, bytes, bool], tuple[int, int]] = {}
        self.ids = (os.geteuid(), os.getegid())
        self.forget_entry: Callable[[int, bytes], None] = lambda parent, name: None
        self.forget_node: Callable[[int], None] = lambda node: None
        # the same, from a thread: done when it returns
        self.forget_now: Callable[[int], None] = lambda node: None
        self.status: Callable[[], bytes] = lambda: b"{}"
        self.status_of: Callable[[bytes], bytes] = lambda transcript: b"{}"
        self.ask: Callable[[Writer, bytes], None] = _refuse
        self.answer: Callable[[Writer], bytes] = _refuse
        self.mark = UNMARKED
        self.format_changed: Callable[[Format], None] = lambda format: None
        self.settled: Callable[[bytes, tuple[Effect, ...]], None] | None = None

    def node(self, node_id: int) -> Node:
        """The node that a request names; ESTALE if the guard does not know it."""
        node = self.nodes.get(node_id)
        if node is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node

    def keep_marks(self, handle: Handle) -> None:
        """Where writes through *handle* go has changed: the next daemon is to know."""
        if self.keeper is not None:
            self.keeper.nodes.marked(handle)

    def clock(self) -> int:
        """Wall clock, ns since the epoch."""
        return now()

    def caller(self) -> Caller:
        """The caller of the request that is being answered, where pyfuse3 does not say."""
        return caller_of(self.request)

    def reclassify(self, names: NameRules) -> None:
        """Another policy is in force: what a name means, and how long the kernel may believe it, may have changed.

        Names that the kernel knows not to exist stay so until they are made, or until what it believes of them ends.
        """
        self.kind = names.kind
        self.records = Assembler(format=FORMATS[self.judge.decider.policy.transcripts.format])
        self.format_changed(self.records.format)
        for node in self.nodes:
            kind = max((names.kind(name) for _, name in node.names), default=node.kind)
            if node.is_dir or kind is node.kind:
                continue
            node.kind = kind
            for parent, name in node.names:
                self.forget_entry(parent.id, name)
            self.forget_node(node.id)

    def times(self, node: Node, st: os.stat_result) -> Timeouts:
        """How long the kernel may believe what it is told of *node*."""
        if node.kind is Kind.TRANSCRIPT:
            return timeouts(node.kind, watched=True)
        home = node.names[-1][0] if node.names else node
        if node.kind is Kind.LOCK:
            every_look = self.audit.wants("look", Kind.OTHER)
            return timeouts(
                node.kind, watched=home.watched, links=st.st_nlink, made=node.made, every_look=every_look
            )
        if node.is_dir:
            return timeouts(Kind.OTHER, watched=node.watched and (home.watched or node is self.nodes.root))
        return timeouts(Kind.OTHER, watched=home.watched, links=st.st_nlink)

    def watch(self, node: Node) -> None:
        """Have changes in the directory *node* announced, if that can be had; without, it is cached for a second."""
        if node.watched or self.watcher is None:
            return
        try:
            self.watcher.add(node, self.fds.path(node))
        except OSError as error:
            log.warning("%s: not watched: %s", os.fsdecode(node.path()), error.strerror)

    def open_below(self, path: bytes, flags: int, mode: int = 0, dir_fd: int | None = None) -> int:
        """open(2); where the descriptors have run out, those that can be had again are let go first."""
        try:
            return self.below.open(path, flags, mode, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.fds.shrink(dir_fd):
                raise
        return self.below.open(path, flags, mode, dir_fd=dir_fd)

    def child_path(self, parent: Node, name: bytes) -> bytes:
        """The path of *name* in *parent*, below the mount."""
        return name if parent.id == 1 else parent.path() + b"/" + name

    def gate(self) -> None:
        """Refuse a change with EIO while the log cannot be written, if the operator asked for that."""
        if self.audit_required and self.audit.failing:
            raise OSError(errno.EIO, "the audit log cannot be written")

    def internal_error(self, where: str) -> None:
        """Count and log an error of the guard's own; called from an except block."""
        self.internal_errors += 1
        self.last_error = where
        log.exception("internal error in %s; the operation is answered all the same", where)
        try:
            self.audit.emit(Notice("error", now(), {"where": where, "total": self.internal_errors}))
        except Exception:
            log.exception("nor can the audit log be told of it")

    def note(
        self,
        op: str,
        begin: int,
        caller: Context,
        kind: Kind,
        path: bytes,
        errno_: int = 0,
        node: Node | None = None,
        *,
        to: bytes | None = None,
        data: bytes | None = None,
        operation: OperationClass | None = None,
        before: Fingerprint | None = None,
        after: Fingerprint | None = None,
        replaced: Fingerprint | None = None,
        writes: bool = False,
        fenced: bool = True,
        logged: bool = True,
        truncates: bool = False,
        **more: Any,
    ) -> None:
        """Take down one operation for judgement and log. Never raises: the operation is done, whatever becomes of its
        event.

        Whatever must be true of the moment is taken down here; the rest is done by `settle`.

        data: what was written at ``offset`` to a transcript or a lock file. operation: the class, where *op* alone does
        not tell. before, replaced, writes, truncates: as in `Happening`. after: what it left, where
        *node* does not tell. fenced, logged: whether fences, and the log, are to know of it.
        """
        try:
            if self.mark is UNSEEN:
                return
            wanted = logged and self.audit.wants(op, kind)
            if not wanted and (kind is Kind.OTHER or not fenced):
                return
            noted = Noted(
                op,
                begin,
                (now() - begin) // 1000,
                kind,
                path,
                errno_,
                node,
                after or (self.state(node) if fenced and kind is Kind.TRANSCRIPT else None),
                self.processes.writer(caller.pid, caller.uid, caller.gid),
                to,
                data,
                operation,
                before,
                replaced,
                writes,
                fenced,
                truncates,
                wanted,
                self.mark,
                more,
            )
        except Exception:
            self.internal_error(f"note of {op}")
            return
        if self.keeper is not None:
            self.keeper.note(noted)
        self.noted.append(noted)
        if not self.settles_later:
            self.settle()

    def settle(self) -> None:
        """Judge what was noted, and tell the log and the fences, in the order of the answers. Never raises.

        The dispatcher calls it once a request is answered, so that no caller waits for it.
        """
        noted = self.noted
        if self.keeper is not None and self.keeper.finished:
            self.keeper.answered()
        while noted:
            item = noted.popleft()
            keeper = self.keeper if item.serial else None
            if keeper is not None:
                keeper.settling(item.serial)
            try:
                self._settle_one(item)
            except Exception:
                self.internal_error(f"note of {item.op}")
            if keeper is not None:
                keeper.settled(item.serial)

    def _settle_one(self, item: Noted) -> None:
        op, kind, writer, node, more = item.op, item.kind, item.writer, item.node, item.more
        mark = item.mark
        node_id = node.id if node is not None else 0
        records: list[RecordMeta] = []
        kept = False
        if item.data is not None and kind is Kind.LOCK:
            kept = is_kept(item.data)
        elif item.data is not None:
            records = self.records.feed((node_id or item.path, writer.tgid), more.get("offset"), item.data)
        if kind is Kind.OTHER:
            found = Judgement(self.judge.other(writer, op, item.path, item.to, item.operation))
        else:
            happening = Happening(
                op,
                kind,
                item.path,
                time.monotonic_ns(),
                item.begin,
                item.errno,
                item.to,
                item.before,
                item.after,
                item.replaced,
                tuple(records),
                item.operation,
                item.writes,
                item.fenced,
                mark.staged,
                mark.side,
                mark.aside,
                item.truncates,
                kept,
            )
            found = self.judge.judge(writer, happening)
            if mark.decision is not None and found.decision.verdict == "allow":
                found = found._replace(decision=mark.decision)
        effects = found.effects
        try:
            self.counters.operation(op, found.decision.lane, mark.verdict)
            if item.wanted:
                self._tell_log(item, found, records)
        except Exception:  # the fences are to know all the same
            self.internal_error(f"note of {op}")
        if effects or (kind is Kind.LOCK and op == "create"):
            try:
                self.fences_changed(writer, effects)
            except Exception:  # the views are to know all the same
                self.internal_error(f"fences after {op}")
        if kind is not Kind.OTHER and self.settled is not None:
            self.settled(self.judge.transcript_of(item.path, kind), effects)

    def _tell_log(self, item: Noted, found: Judgement, records: list[RecordMeta]) -> None:
        more, mark = item.more, item.mark
        if len(records) > MAX_RECORDS:
            more["more"] = len(records) - MAX_RECORDS
            del records[MAX_RECORDS:]
        self.audit.emit(
            Operation(
                op=item.op,
                time_ns=item.begin,
                us=item.us,
                path=item.path,
                kind=item.kind,
                writer=item.writer,
                decision=found.decision,
                errno=item.errno,
                to=item.to,
                records=records or None,
                operation=item.operation,
                fence=found.fence,
                lock=found.lock,
                claim=found.claim,
                node=item.node.id if item.node is not None else 0,
                applied=mark.verdict,
                branch=mark.branch,
                **more,
            )
        )

    def state(self, node: Node | None) -> Fingerprint | None:
        """What an agent that looks at *node* now sees, as far as the guard knows."""
        if node is None or (node.seen is None and node.view is None):
            return None
        if node.seen is None:
            return None if node.view is None else node.view.shown(ABSENT)
        size, mtime_ns, ctime_ns, _ = node.seen
        real = Fingerprint(node.dev, node.ino, size, mtime_ns, ctime_ns)
        return real if node.view is None else node.view.shown(real)

    def saw(self, node: Node, st: os.stat_result) -> None:
        """Compare a stat result with what the guard left behind: a difference was made by a writer that it
        did not see.
        """
        seen = seen_of(st)
        before = node.seen
        if before is None:
            before = self.nodes.last_seen(st)
        node.seen = seen
        if before is None or before == seen:
            return
        if node.is_dir and before[3] == seen[3]:  # its times move with every entry
            return
        self.unseen(
            node.path(), node.kind, "modified" if before[:2] != seen[:2] else "attributes", before, seen, node
        )

    def left(self, node: Node, st: os.stat_result) -> None:
        """Note the state in which the guard itself leaves a file."""
        node.seen = seen_of(st)
        node.setid = st.st_mode & 0o6000 != 0

    def expect(self, parent: Node, name: bytes, *, gone: bool = False) -> None:
        """The guard itself has put *name* into *parent*, or taken it away, or has told of it already: the watch will
        report it, and need not be believed."""
        parent.turns += 1
        if self.watcher is None:
            return
        if len(self._expected) >= _EXPECTED_NAMES:
            self._expected.clear()
        key = (parent.id, name, gone)
        self._expected[key] = (self._expected.get(key, (0, 0))[0] + 1, time.monotonic_ns())

    def expected(self, parent: Node, name: bytes, times: int, *, gone: bool = False) -> bool:
        """Whether *times* reports of the watch on *name* were expected; they are settled."""
        count, when = self._expected.pop((parent.id, name, gone), (0, 0))
        if time.monotonic_ns() - when > _EXPECTED_NS:
            return False
        if count > times:
            self._expected[parent.id, name, gone] = (count - times, when)
        return count >= times

    def unseen(
        self,
        path: bytes,
        kind: Kind,
        change: str,
        before: Seen | None,
        after: Seen | None,
        node: Node | None = None,
    ) -> None:
        """Log a change that did not come through the mount. node: the file that it was done to."""
        self.unseen_changes += 1
        fields: dict[str, Any] = {
            "path": path.decode("utf-8", "backslashreplace"),
            "kind": kind.name.lower(),
            "change": change,
            "lane": "unseen",
        }
        for label, seen in (("before", before), ("after", after)):
            if seen is not None:
                fields[label] = {
                    "size": seen[0],
                    "mtime_ns": seen[1],
                    "ctime_ns": seen[2],
                    "mode": f"{seen[3]:o}",
                }
        wall = now()
        self.audit.emit(Notice("unseen", wall, fields))
        if kind is Kind.TRANSCRIPT:
            states = [
                Fingerprint(node.dev, node.ino, *seen[:3]) if node is not None and seen is not None else None
                for seen in (before, after)
            ]
            gone, made = change == "removed", change == "created"
            effects = self.judge.unseen(
                path,
                ABSENT if made else states[0],
                ABSENT if gone else states[1],
                time.monotonic_ns(),
                wall,
            )
            if effects:
                self.fences_changed(None, effects)

    def stat_node(self, node: Node) -> os.stat_result:
        """Attributes of the file below, by the cheapest descriptor or name that leads to it."""
        if node.opened:
            return self.below.fstat(node.opened[-1])
        if node.fd >= 0:
            return self.below.fstat(node.fd)
        for parent, name in reversed(node.names):
            try:
                st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
            except FileNotFoundError:
                continue
            if (st.st_dev, st.st_ino) == (node.dev, node.ino):
                return st
        return self.below.fstat(self.fds.of(node))
