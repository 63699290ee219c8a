"""Open files while a policy is enforced: what is written goes to the file, or to the branch of its lane."""

from __future__ import annotations

import errno
import os
from typing import Any

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.fence.events import Kind as Happened
from guardfs.fence.fingerprint import ABSENT
from guardfs.fence.staging import View
from guardfs.fence.waits import Waiter
from guardfs.lanes.writer import Writer
from guardfs.mount.caching import timeouts
from guardfs.mount.layout import request_of
from guardfs.mount.nodes import Node
from guardfs.mount.operations.core import now
from guardfs.mount.operations.enforcing import through
from guardfs.mount.operations.parts import Context, Handle, Held, Later, Mark
from guardfs.mount.operations.unstaged import Unstaged
from guardfs.mount.views import Live, Staged
from guardfs.policy.facts import operation_class
from guardfs.policy.judge import Ruling
from guardfs.policy.model import seconds
from guardfs.transcript.meta import PEEK, RecordMeta

_HEAD = 256 << 10
"""Bytes of a write that are read for its first record before the verdict."""


class Branching(Unstaged):
    """create, open, read, write, fsync, release."""

    @through
    def create(
        self, parent_id: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Create a transcript: the file, or a branch that only its lane sees."""
        parent = self.node(parent_id)
        path = self.child_path(parent, name)
        if self.views is None or self.kind(name) is not Kind.TRANSCRIPT or not self._asks(path):
            return super().create(parent_id, name, mode, flags, ctx)
        begin, writer = now(), self._writer(ctx)
        staged = self.views.of.get(path)
        self.views.came(path, ctx.pid)
        truncates = flags & os.O_TRUNC != 0
        ruling = self.judge.rule(writer, path, Happened.CREATE, "create", truncates=truncates)
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "create", begin, ctx, path)
        bits, owner = mode & ~ctx.umask & 0o7777, (ctx.uid, ctx.gid)
        live = self._where(path, writer, ruling, node=None, what="create", mode=bits, owner=owner)
        if live is None and staged is not None:
            hidden = self._hidden(staged, writer, parent, name)
            if hidden is not None and not truncates:
                return self._open_hidden(hidden, parent, name, flags, ctx)
            if hidden is not None:  # it would be emptied
                live = self._beside_hidden(staged, ruling, bits, owner)
        if live is None:
            if staged is not None and ruling.standing.fenced:
                self.views.made_anew(staged)
            info, reply = super().create(parent_id, name, mode, flags, ctx)
            self.done = info, reply
            self.views.named(path, self.handles[info.fh].node.id)
            handle = self.handles[info.fh]
            standing = ruling.standing
            handle.settled = standing.side or (standing.own and not standing.owners)
            if handle.settled:
                self.keep_marks(handle)
            return info, reply
        if not live.branch.made:
            self.views.make(live, bits, owner)
        node = self.views.node(live)
        self.views.named(path, node.id)
        info = self._branch_handle(live, node, flags)
        if live.branch.length and not flags & os.O_APPEND:  # another has begun it: it goes on behind that
            handle = self.handles[info.fh]
            handle.follows = 0
            self.keep_marks(handle)
        self._marked(
            self._mark_of(live),
            "create",
            begin,
            ctx,
            path,
            0,
            node,
            append=flags & os.O_APPEND != 0,
            truncates=truncates,
        )
        times = timeouts(Kind.TRANSCRIPT, watched=True)
        self.reply.fill(node.id, self._branch_stat(live), times.entry, times.attributes)
        return info, self.reply.show(live.branch.shown)

    def _hidden(self, staged: Staged, writer: Writer, parent: Node, name: bytes) -> os.stat_result | None:
        """The file, if there is one, and *writer* is not shown it: its process relies on there being none."""
        view = self.views.look(staged, writer)  # type: ignore[union-attr]
        if not isinstance(view, Live) or view.branch.made:
            return None
        try:
            return self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _beside_hidden(
        self, staged: Staged, ruling: Ruling, mode: int, owner: tuple[int, int]
    ) -> Live | None:
        """The branch of a lane that makes the file anew, not seeing it; None if it cannot be kept."""
        target = staged.staging.target(ruling.standing, ruling.process, ruling.decision.lane)
        return self._staged_on(staged, target, ruling, "create", base=ABSENT, mode=mode, owner=owner)

    def _open_hidden(
        self, st: os.stat_result, parent: Node, name: bytes, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """What *ctx*'s thread is about to make is there, and what it writes belongs into it."""
        if flags & os.O_EXCL:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        node = self._known(parent, name, st, Kind.TRANSCRIPT)
        try:
            info = super().open(node.id, flags & ~os.O_CREAT, ctx)
        except BaseException:
            self.nodes.refer(node, -1)
            raise
        self.views.named(node.path(), node.id)  # type: ignore[union-attr]
        times = timeouts(Kind.TRANSCRIPT, watched=True)
        reply = self.reply.fill(node.id, st, times.entry, times.attributes)
        self.done = info, reply
        return info, reply

    @through
    def open(self, node_id: int, flags: int, ctx: Context) -> Any:
        """Open the file in the caller's view."""
        node = self.nodes.get(node_id)
        after = None if node is None else self.views.left_behind(node, ctx.pid)  # type: ignore[union-attr]
        if after is not None:
            return self._open_after(after, node_id, flags, ctx)
        if node is None or not self._decides(node):
            self.views.came(b"", ctx.pid)  # type: ignore[union-attr]
            return super().open(node_id, flags, ctx)
        self._found(node, ctx)
        view = node.view
        if isinstance(view, Live):
            self.views.came(node.path(), ctx.pid)  # type: ignore[union-attr]
            live = self._to_cut(view, node, ctx) if flags & os.O_TRUNC else view
            return self._open_branch(live, node, flags, ctx)
        held = self._redirect(node, flags, ctx)
        self.views.came(node.path(), ctx.pid)  # type: ignore[union-attr]
        return super().open(node_id, flags, ctx) if held is None else held

    def _open_after(
        self, place: tuple[Node, bytes], node_id: int, flags: int, ctx: Context
    ) -> pyfuse3.FileInfo:
        """A rebase has put another file at *place*, between the caller's lookup and this: ESTALE, and where that was
        answered already, the new file all the same."""
        parent, name = place
        if self.views.tell(self.child_path(parent, name), ctx.pid):  # type: ignore[union-attr]
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        try:
            st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
        except FileNotFoundError:
            return super().open(node_id, flags, ctx)
        node = self._known(parent, name, st, Kind.TRANSCRIPT)
        self.nodes.refer(node, -1)  # the kernel goes on by the node that it has
        info = super().open(node.id, flags, ctx)
        info.direct_io = True
        return info

    def _to_cut(self, view: Live, node: Node, ctx: Context) -> Live:
        """The branch that is to be cut by *node*, which is that of *view*: an owner's is not by another lane of its
        process. ESTALE, if the caller is to come to another one."""
        if view.branch.key.kind != "process":
            return view
        views, path, writer = self.views, node.path(), self._writer(ctx)
        assert views is not None
        ruling = self.judge.rule(writer, path, Happened.TRUNCATE, "truncate", truncates=True)
        if ruling.standing.owners or not (ruling.standing.own or ruling.standing.side):
            return view
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "truncate", now(), ctx, path)
        found = self._where(path, writer, ruling, node=node, what="open")
        self._again(views, view.staged, ctx, found or View.COMMITTED)
        return found or view

    def _redirect(
        self, node: Node, flags: int, ctx: Context, *, waited: bool = False
    ) -> Held | pyfuse3.FileInfo | None:
        """ESTALE, if the caller is to have another view than *node*. The answer, if it is to wait for the fence's end
        (waited: it has done so), or is given a branch all the same."""
        views = self.views
        assert views is not None
        path, writer = node.path(), self._writer(ctx)
        truncates = flags & os.O_TRUNC != 0
        staged = views.of.get(path)
        if flags & os.O_ACCMODE == os.O_RDONLY and not truncates:
            if staged is not None:
                actor = self.judge.actor(writer)
                if views.lingers(staged) and (
                    self.judge.machine.begins(path, actor)
                    or (views.overdue(staged) and self.judge.machine.reads_first(path, actor))
                ):
                    views.due(path, now=True)
                    if views.tell(
                        path, ctx.pid
                    ):  # the kernel may hold a size that is not the file's any more
                        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
                standing = self.judge.standing(writer, path, Happened.OPEN_READ)
                side = staged.staging.side(actor.process)
                if standing.own and not standing.owners and side is not None:
                    self._again(views, staged, ctx, staged.lives[side.number])
            return None
        kind, operation = (Happened.TRUNCATE, "truncate") if truncates else (Happened.APPEND, "append")
        ruling = self.judge.rule(writer, path, kind, operation, truncates=truncates)  # type: ignore[arg-type]
        if ruling.standing.own and not truncates:
            return None  # what it writes will tell which lane it is
        if ruling.decision.verdict == "deny":
            if truncates:
                self._refuse(ruling, "truncate", now(), ctx, path)
            return None
        if staged is not None and staged.lost(node):
            if not (ruling.standing.own and ruling.standing.owners):
                self._again(views, staged, ctx, View.COMMITTED)
                if truncates:  # it would be the owner's file
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return None
        if ruling.decision.verdict == "wait" and not waited:
            share = self.judge.decider.policy.fence.max_waiting
            fenced = bool(self.judge.machine.owners(path))
            standing, locks = ruling.standing, ruling.lock == "own"
            if views.waits.admits(Waiter(ruling.process, fenced, standing.own, locks, share)):
                return self._hold(node, flags, ctx, ruling)
        if truncates:
            views.keep_for_beginners(path)
        live = self._where(path, writer, ruling, node=node, what="open")
        if live is not None:
            self._again(views, live.staged, ctx, live)
            if truncates:
                return self._open_branch(live, node, flags, ctx)
        return None

    def _hold(self, node: Node, flags: int, ctx: Context, ruling: Ruling) -> Held:
        """Hold an open for writing until nobody relies on the transcript any more.

        Everything may change meanwhile, so *then* asks once more; the node is found again by its id.
        """
        views, begin, path, machine = self.views, now(), node.path(), self.judge.machine
        assert views is not None
        views.waits.entered(ruling.process)

        def then(in_vain: bool) -> Any:
            verdict = ruling.decision.on_timeout if in_vain else "wait"
            detail = {"waited_ms": (now() - begin) // 1_000_000, "in_vain": in_vain}
            number = errno.EBUSY if verdict == "deny" else 0
            self._marked(Mark("wait", aside=True), "open", begin, ctx, path, number, node, detail=detail)
            if verdict == "deny":
                raise OSError(number, os.strerror(number))
            if in_vain and verdict == "stage":
                self._redirect(node, flags, ctx, waited=True)
            return super(Branching, self).open(node.id, flags, ctx)

        return Held(
            over=lambda: not machine.owners(path),
            seconds=seconds(self.judge.decider.policy.fence.wait_timeout),
            request=None if self.request is None else request_of(self.request),
            then=then,
            left=lambda: views.waits.left(ruling.process),
        )

    def _open_branch(self, live: Live, node: Node, flags: int, ctx: Context) -> pyfuse3.FileInfo:
        views = self.views
        assert views is not None
        begin = now()
        truncates = flags & os.O_TRUNC != 0
        before = live.branch.shown
        info = self._branch_handle(live, node, flags)
        if truncates:
            try:
                self.gate()
                views.truncate(live, 0)
            except BaseException:
                self._unopened(info.fh)
                raise
            self.done = info
        append = flags & os.O_APPEND != 0
        if truncates:
            mark = self._mark_of(live)
            self._marked(
                mark, "truncate", begin, ctx, node.path(), 0, node, before=before, size=0, append=append
            )
        else:
            writes = flags & os.O_ACCMODE != os.O_RDONLY
            self._aside("open", begin, ctx, node.path(), 0, node, writes=writes, append=append)
        return info

    def handle(self, fd: int, node: Node, flags: int) -> pyfuse3.FileInfo:
        """Register an open file. Of a transcript that is open to read and write, every read is asked for: what one
        process sees of it need not be what another does."""
        info = super().handle(fd, node, flags)
        if (
            self.views is not None
            and node.kind is Kind.TRANSCRIPT
            and flags & os.O_ACCMODE == os.O_RDWR
            and self.judge.enforcing(node.path())
        ):
            info.direct_io = True
            if self.keeper is not None:
                self.keeper.nodes.told(self.handles[info.fh], direct_io=True)
        return info

    @through
    def read(self, number: int, offset: int, size: int) -> Any:
        """Read what the handle's view holds."""
        handle = self.handles.get(number)
        live = self._branch_of(handle)
        if live is None or handle is None:
            return super().read(number, offset, size)
        begin = now()
        data = live.read(size, offset)
        if self.audit.wants("read", handle.node.kind):
            self._noted_read(handle, offset, len(data), begin, self.caller())
        return data

    @through
    def write(self, number: int, offset: int, data: bytes) -> int | Later:
        """Write to the file, or to the branch of the writer."""
        handle = self.handles.get(number)
        if handle is None or not (self._branch_of(handle) is not None or self._decides(handle.node)):
            return self._plainly(handle, number, offset, data)
        begin, caller, self.placed = now(), self.caller(), None
        live = self._branch_of_write(handle, offset, data, begin, caller)
        if live is None:
            written = self._plainly(handle, number, offset, data)
            self._tear(handle, data)
            if isinstance(handle.node.view, Staged) and self.views is not None:
                self.done = written
                self.views.echo(handle.node.view)
            return written
        views, node = self.views, handle.node
        assert views is not None
        views.touched.add(live.staged.staging.transcript)
        before = live.branch.shown
        at = live.branch.length if handle.append else self._behind(handle, offset, live)
        try:
            self.gate()
            self.placed = live, at
            self.done = written = views.write(live, data, at)
        except OSError as error:
            written = self._not_staged(handle, data, at, live, error)
            self._tear(handle, data[:written])
            self._went_on(handle, offset, written, data)
            return self._synced(handle, written)
        self._went_on(handle, offset, written, data)
        data = data[:written]
        self._tear(handle, data)
        operation = operation_class("write", append=handle.append, offset=at, size_before=before.size)
        self._marked(
            self._mark_of(live),
            "write",
            begin,
            caller,
            node.path(),
            0,
            live.node or node,
            offset=at,
            size=len(data),
            append=handle.append,
            data=data,
            before=before,
            after=live.branch.shown,
            operation=operation,
        )
        return self._synced(handle, written)

    def _plainly(self, handle: Handle | None, number: int, offset: int, data: bytes) -> int | Later:
        """To the file."""
        if handle is None or handle.follows < 0:
            return super().write(number, offset, data)
        written = super().write(number, self._behind(handle, offset, None), data)
        self._went_on(handle, offset, written, data)
        return written

    def _synced(self, handle: Handle, written: int) -> int | Later:
        """The answer to a write, which of a file that was opened with O_SYNC is on the disk before."""
        if handle.sync is None:
            return written
        live = handle.live
        bring = live.file.syncing() if live is not None else lambda: self.below.fsync(handle.fd)
        return Later(bring, lambda _: written, None, written)

    def _branch_of_write(
        self, handle: Handle, offset: int, data: bytes, begin: int, caller: Context
    ) -> Live | None:
        live: Live | None = handle.live
        opened = live is not None and live.node is handle.node
        if opened and live.branch.key.kind != "process":  # type: ignore[union-attr]
            return live
        if handle.torn or handle.settled:
            return live  # the rest of a record goes where its beginning went
        node, seen = handle.node, handle.node.seen
        path, writer = node.path(), self._writer(caller)
        operation = operation_class(
            "write", append=handle.append, offset=offset, size_before=None if seen is None else seen[0]
        )
        kind = Happened.APPEND if operation == "append" else Happened.REWRITE
        records = self._first(data)
        ruling = self.judge.rule(writer, path, kind, operation, records=records)
        if opened and not (ruling.standing.own and not ruling.standing.owners):
            self._past_its_lock(path, writer, ruling)
            return live
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "write", begin, caller, path, offset=offset, append=handle.append)
        found = self._where(path, writer, ruling, node=node, what="write")
        if found is None and handle.journal:
            return live  # it has no descriptor of the file
        if found is not live:
            if live is not None:
                live.handles.remove(handle)
            if found is not None:
                found.handles.append(handle)
            handle.live = found
        if found is None or found.branch.key.kind == "process":
            self._past_its_lock(path, writer, ruling)
        return found

    def _past_its_lock(self, path: bytes, writer: Writer, ruling: Ruling) -> None:
        """An owner that is about to write is to find at its next check what it expects, though it writes without its
        lock, or behind the look that it relies on."""
        if not ruling.standing.owners:
            return
        if ruling.lock != "own" or self.judge.machine.late(path, self.judge.actor(writer)):
            staged = None if self.views is None else self.views.staged(path)
            if staged is not None:
                staged.staging.forgive = True

    def _first(self, data: bytes) -> tuple[RecordMeta, ...]:
        """The first record of a write, as far as it can be told."""
        newline = data.find(b"\n", 0, _HEAD)
        parse = self.records.format.parse if newline >= 0 else self.records.format.peek
        return (parse(bytes(data[:newline]) if newline >= 0 else bytes(data[:PEEK])),)

    @through
    def fsync(self, number: int, datasync: bool) -> Later:
        """Bring the file, or the branch, to the disk."""
        handle = self.handles.get(number)
        if handle is None or self._branch_of(handle) is None:
            return super().fsync(number, datasync)
        begin, node, caller, live = now(), handle.node, self.caller(), handle.live

        def then(_: Any) -> None:
            self._aside("sync", begin, caller, node.path(), 0, node)

        return Later(live.file.syncing(), then)

    @through
    def release(self, number: int) -> None:
        """The last descriptor of an open file is closed."""
        handle = self.handles.get(number)
        if handle is not None and handle.live is not None:
            handle.live.handles.remove(handle)
            if self.views is not None:
                self.views.touched.add(handle.live.staged.staging.transcript)
            handle.live = None
        super().release(number)
