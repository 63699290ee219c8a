"""Attributes while a policy is enforced: they change below, and a transcript's owner goes on seeing those that it
relies on."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec
import pyfuse3

from guardfs.audit.event import Kind
from guardfs.fence.events import Kind as Happened
from guardfs.fence.staging import View
from guardfs.lanes.writer import Writer
from guardfs.mount.caching import timeouts
from guardfs.mount.nodes import Node
from guardfs.mount.operations.core import now
from guardfs.mount.operations.enforcing import through
from guardfs.mount.operations.haunting import Haunting
from guardfs.mount.operations.parts import Context
from guardfs.mount.views import Live


class Enforced(Haunting):
    """setattr, link, setxattr, removexattr; and with those below it, every operation that a policy can decide about."""

    @through
    def setattr(
        self,
        node_id: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        number: int | None,
        ctx: Context,
    ) -> pyfuse3.EntryAttributes:
        """chmod, chown, truncate and utimens: on the branch what belongs to it, on the file what belongs to that."""
        node = self.nodes.get(node_id)
        views = self.views
        assert views is not None
        if node is not None and number is None:
            after = views.left_behind(node, ctx.pid)
            if after is not None and views.tell(self.child_path(*after), ctx.pid):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if node is None or not self._decides(node):
            views.came(b"", ctx.pid)
            return super().setattr(node_id, attr, fields, number, ctx)
        begin, path, writer = now(), node.path(), self._writer(ctx)
        self._found(node, ctx)
        if isinstance(node.view, Live):
            views.came(path, ctx.pid)
        live = node.view if isinstance(node.view, Live) else None
        if fields.update_size:
            if live is not None and number is None:
                live = self._to_cut(live, node, ctx)
            if live is None:
                live = self._branch_of_truncate(node, number, begin, ctx, writer)
            if live is not None:
                return self._truncate_branch(live, node, attr.st_size, begin, ctx)
            return super().setattr(node_id, attr, fields, number, ctx)
        if live is not None and live.base_fd < 0:
            return self._describe_branch(live, node, attr, fields, begin, ctx)
        ruling = self.judge.rule(writer, path, Happened.ATTRIBUTES, "attributes")
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "attributes", begin, ctx, path)
        if live is not None and (fields.update_mtime or fields.update_atime):
            views.touch(live, _mtime(attr, fields, self.request_flags))
        return self._keeping(  # type: ignore[no-any-return]
            path, node, ruling, lambda: super(Enforced, self).setattr(node_id, attr, fields, number, ctx)
        )

    def _branch_of_truncate(
        self, node: Node, number: int | None, begin: int, ctx: Context, writer: Writer
    ) -> Live | None:
        views, path = self.views, node.path()
        assert views is not None
        ruling = self.judge.rule(writer, path, Happened.TRUNCATE, "truncate")
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "truncate", begin, ctx, path)
        staged = views.of.get(path)
        if staged is not None and staged.lost(node) and number is None:
            if not (ruling.standing.own and ruling.standing.owners):
                self._again(views, staged, ctx, View.COMMITTED)
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return None
        views.keep_for_beginners(path)
        live = self._where(path, writer, ruling, node=node, what="truncate")
        handle = None if number is None else self.handles.get(number)
        if live is None or handle is None:
            if live is not None:
                self._again(views, live.staged, ctx, live)
            return live
        if handle.live is not live:
            handle.live = live
            live.handles.append(handle)
        return live

    def _truncate_branch(
        self, live: Live, node: Node, size: int, begin: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        views = self.views
        assert views is not None
        before = live.branch.shown
        self.gate()
        # all that a truncation does not change, as long as an error does not mean that it was done
        st = self._branch_stat(live) if node.view is live else self.stat_node(node)
        views.truncate(live, size)
        self._marked(
            self._mark_of(live),
            "truncate",
            begin,
            ctx,
            node.path(),
            0,
            live.node or node,
            before=before,
            after=live.branch.shown,
            size=size,
        )
        times = timeouts(Kind.TRANSCRIPT, watched=True)
        reply = self.reply.fill(node.id, st, times.entry, times.attributes)
        shown = self.state(node)
        return reply if shown is None else self.reply.show(shown)

    def _describe_branch(
        self, live: Live, node: Node, attr: Any, fields: Any, begin: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Attributes of a file that is only to be made."""
        views, facts = self.views, live.file.facts
        assert views is not None
        change: dict[str, int] = {}
        if fields.update_mode:
            change["mode"] = attr.st_mode & 0o7777
        if fields.update_uid:
            change["uid"] = attr.st_uid
        if fields.update_gid:
            change["gid"] = attr.st_gid
        before = live.branch.shown
        if change:
            views.describe(live, msgspec.structs.replace(facts, **change))
        views.touch(live, _mtime(attr, fields, self.request_flags))
        self._marked(self._mark_of(live), "attributes", begin, ctx, node.path(), 0, node, before=before)
        times = timeouts(Kind.TRANSCRIPT, watched=True)
        self.reply.fill(node.id, self._branch_stat(live), times.entry, times.attributes)
        return self.reply.show(live.branch.shown)

    @through
    def link(self, node_id: int, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Give a file a further name, which moves its ctime."""
        return self._attributes(  # type: ignore[no-any-return]
            node_id, ctx, lambda: super(Enforced, self).link(node_id, parent_id, name, ctx)
        )

    @through
    def setxattr(self, node_id: int, name: bytes, value: bytes, ctx: Context) -> None:
        """Set an extended attribute, which moves the ctime."""
        self._attributes(node_id, ctx, lambda: super(Enforced, self).setxattr(node_id, name, value, ctx))

    @through
    def removexattr(self, node_id: int, name: bytes, ctx: Context) -> None:
        """Remove an extended attribute, which moves the ctime."""
        self._attributes(node_id, ctx, lambda: super(Enforced, self).removexattr(node_id, name, ctx))

    def _attributes(self, node_id: int, ctx: Context, act: Any) -> Any:
        node = self.nodes.get(node_id)
        if node is None or not self._decides(node):
            return act()
        path = node.path()
        ruling = self.judge.rule(self._writer(ctx), path, Happened.ATTRIBUTES, "attributes")
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "attributes", now(), ctx, path)
        return self._keeping(path, node, ruling, act)


def _mtime(attr: Any, fields: Any, flags: int) -> int | None:
    """What a setattr makes of the modification time, ns; None: nothing."""
    if not fields.update_mtime:
        return None
    return now() if flags & 1 << 8 else int(attr.st_mtime_ns)  # FUSE_SET_ATTR_MTIME_NOW
