"""lookup and getattr while a policy is enforced: each caller is answered with the node of its own view."""

from __future__ import annotations

import errno
import os
from typing import Any

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.staging import View
from guardfs.lanes.writer import Writer
from guardfs.mount.caching import timeouts
from guardfs.mount.nodes import Node
from guardfs.mount.operations.core import now
from guardfs.mount.operations.enforcing import Enforcing, through
from guardfs.mount.operations.parts import UNSEEN, Context
from guardfs.mount.views import Fixed, Live, Staged, Views


class Looking(Enforcing):
    """lookup, getattr."""

    @through
    def lookup(self, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Answer with the node of the caller's view."""
        views = self.views
        if views is None or not (views.of or views.names):
            return super().lookup(parent_id, name, ctx)
        parent = self.node(parent_id)
        if self.kind(name) is not Kind.TRANSCRIPT:
            reply = super().lookup(parent_id, name, ctx)
            node = self.nodes.entry(parent, name) if reply.st_ino else None
            return reply if node is None else self._as_owner_sees(node, reply)
        path = self.child_path(parent, name)
        staged = views.of.get(path)
        if staged is None and path not in views.names:
            return super().lookup(parent_id, name, ctx)
        before = self.mark
        repeated = views.repeats(path, ctx.pid)
        if repeated:
            self.mark = UNSEEN
        try:
            if staged is None:
                reply, node_id = self._look_plainly(parent, name, ctx)
            else:
                reply, node_id = self._look(views, staged, parent, name, ctx)
        finally:
            self.mark = before
        views.answered(path, ctx.pid, node_id, repeated=repeated)
        return reply

    def forgotten(self, parent_id: int, name: bytes) -> None:
        """The kernel has forgotten *name*, and what it asked before that is answered: of the next look it asks once."""
        parent = self.nodes.get(parent_id)
        if parent is not None and self.views is not None:
            self.views.named(self.child_path(parent, name), 0)

    def _look(
        self, views: Views, staged: Staged, parent: Node, name: bytes, ctx: Context
    ) -> tuple[pyfuse3.EntryAttributes, int]:
        """The reply, and the id of the node in it."""
        begin = now()
        if self.mark is not UNSEEN and staged.forgiven is not None and staged.forgiven[0] == ctx.pid:
            staged.forgiven = None  # that was of an earlier look
        writer = self.processes.writer(ctx.pid, ctx.uid, ctx.gid)
        view = views.look(staged, writer)
        if isinstance(view, Live):
            if not view.branch.made:
                self._aside("look", begin, ctx, staged.staging.transcript, errno.ENOENT)
                return self.reply.nothing(timeouts(Kind.TRANSCRIPT, watched=True).absent), 0
            node, st = views.node(view), self._branch_stat(view)
            if view.branch.key.kind != "process":
                return self._seen(node, begin, parent, name, ctx, st, aside=True)
            return self._seen_by_owner(staged, node, begin, parent, name, ctx, st, writer)
        staging = staged.staging
        if view is View.COMMITTED and staging.diverges:
            return self._look_outside(views, staged, parent, name, ctx)
        if staging.ghost:
            node = views.owners(staged)
            return self._seen_by_owner(staged, node, begin, parent, name, ctx, self.stat_node(node), writer)
        if staging.hold is None and not staging.forgive:
            return self._look_plainly(parent, name, ctx)
        return self._look_held(staged, parent, name, ctx, writer)

    def _look_plainly(self, parent: Node, name: bytes, ctx: Context) -> tuple[pyfuse3.EntryAttributes, int]:
        reply = super().lookup(parent.id, name, ctx)
        node = self.nodes.entry(parent, name)
        return reply, 0 if node is None or reply.st_ino == 0 else node.id

    def _look_held(
        self, staged: Staged, parent: Node, name: bytes, ctx: Context, writer: Writer
    ) -> tuple[pyfuse3.EntryAttributes, int]:
        """The owner looks at a file of which it is to see another state."""
        begin = now()
        try:
            st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
        except FileNotFoundError:
            return self._look_plainly(parent, name, ctx)
        node = self._known(parent, name, st, Kind.TRANSCRIPT)
        assert self.views is not None
        self.views.meet(staged, node)
        return self._seen_by_owner(staged, node, begin, parent, name, ctx, st, writer)

    def _seen_by_owner(
        self,
        staged: Staged,
        node: Node,
        begin: int,
        parent: Node,
        name: bytes,
        ctx: Context,
        st: Any,
        writer: Writer,
    ) -> tuple[pyfuse3.EntryAttributes, int]:
        """What it wrote past its own lock is shown to it after its check."""
        expected = None
        if staged.staging.forgive:
            expected = self.judge.machine.forgives(staged.staging.transcript, self.judge.actor(writer))
        if self.mark is UNSEEN and staged.forgiven is not None and staged.forgiven[0] == ctx.pid:
            expected = staged.forgiven[1]  # one look, of which the kernel asks twice
        staged.forgiven = None if expected is None else (ctx.pid, expected)
        if expected is None:
            aside = staged.staging.ghost or isinstance(node.view, Live)
            return self._seen(node, begin, parent, name, ctx, st, aside=aside)
        view, node.view = node.view, Fixed(expected)
        try:
            return self._seen(node, begin, parent, name, ctx, st, aside=True)
        finally:
            node.view = view

    def _look_outside(
        self, views: Views, staged: Staged, parent: Node, name: bytes, ctx: Context
    ) -> tuple[pyfuse3.EntryAttributes, int]:
        """Somebody else than the owner looks, and sees the file as it is."""
        begin = now()
        try:
            st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
        except FileNotFoundError:
            self._aside("look", begin, ctx, self.child_path(parent, name), errno.ENOENT)
            return self.reply.nothing(timeouts(Kind.TRANSCRIPT, watched=True).absent), 0
        if staged.staging.ghost:  # another file has the name now
            node = self._known(parent, name, st, Kind.TRANSCRIPT)
        else:
            node = views.outside(staged, st)
            self.saw(node, st)
        return self._seen(node, begin, parent, name, ctx, st, aside=True)

    def _seen(
        self,
        node: Node,
        begin: int,
        parent: Node,
        name: bytes,
        ctx: Context,
        st: Any,
        *,
        aside: bool,
    ) -> tuple[pyfuse3.EntryAttributes, int]:
        shown = self.state(node)
        path = self.child_path(parent, name)
        size = st.st_size if shown is None else shown.size
        if aside:
            self._aside("look", begin, ctx, path, 0, node, size=size)
        else:
            self.note("look", begin, ctx, Kind.TRANSCRIPT, path, 0, node, size=size)
        times = timeouts(Kind.TRANSCRIPT, watched=True)
        reply = self.reply.fill(node.id, st, times.entry, times.attributes)
        return (reply if shown is None or node.view is None else self.reply.show(shown)), node.id

    def _led_astray(self, live: Live, ctx: Context) -> bool:
        """Whether an owner is led to another lane's branch: by a name that the kernel has moved over the transcript's
        by itself, and has not forgotten yet, although it was told to."""
        branch, transcript = live.branch, live.staged.staging.transcript
        process = self.judge.actor(self._writer(ctx)).process
        if process == branch.key.process or process in branch.processes or self.views is None:
            return False
        return process in self.judge.machine.owners(transcript) and self.views.tell(transcript, ctx.pid)

    @through
    def getattr(self, node_id: int, ctx: Context) -> pyfuse3.EntryAttributes:
        """Attributes as the node's view has them."""
        node = self.nodes.get(node_id)
        if node is None or node.view is None:
            return super().getattr(node_id, ctx)
        begin = now()
        shown: Fingerprint | None = None
        if isinstance(node.view, Live):
            if self._led_astray(node.view, ctx):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            st = self._branch_stat(node.view)
            forgiven = node.view.staged.forgiven if node.view.branch.key.kind == "process" else None
        else:
            st = self.stat_node(node)
            self.saw(node, st)
            forgiven = node.view.forgiven if isinstance(node.view, Staged) else None
        if forgiven is not None and forgiven[0] == ctx.pid:
            shown = forgiven[1]  # the second half of the stat(2) whose lookup was told so
        if self.audit.wants("look", node.kind):
            detail = {"via": "getattr"}
            path = node.path()
            self.note("look", begin, ctx, node.kind, path, 0, node, fenced=False, detail=detail)
        times = timeouts(Kind.TRANSCRIPT, watched=True)
        reply = self.reply.fill(node.id, st, times.entry, times.attributes)
        shown = shown or self.state(node)
        return reply if shown is None else self.reply.show(shown)
