"""Names while a policy is enforced: a transcript's owner keeps the file when another lane takes its name away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.closing import let_go
from guardfs.fence.events import Kind as Happened
from guardfs.fence.fingerprint import Fingerprint
from guardfs.mount.nodes import Node
from guardfs.mount.operations.branching import Branching
from guardfs.mount.operations.core import now
from guardfs.mount.operations.enforcing import through
from guardfs.mount.operations.parts import UNMARKED, Context, Mark
from guardfs.mount.views import Live, Replaced, Staged
from guardfs.policy.judge import Ruling


class Haunting(Branching):
    """unlink, rename."""

    @through
    def unlink(self, parent_id: int, name: bytes, ctx: Context) -> None:
        """Remove a name; a transcript's owner keeps the file until its fence closes."""
        parent = self.node(parent_id)
        self._unlink(parent, name, ctx)
        assert self.views is not None
        self.views.named(self.child_path(parent, name), 0)

    def _unlink(self, parent: Node, name: bytes, ctx: Context) -> None:
        parent_id = parent.id
        further = self._further(parent, name)
        if further is not None:
            act = super().unlink
            return self._by_further_name(further, ctx, lambda: act(parent_id, name, ctx))
        node = self._fenced_entry(parent, name)
        if node is None:
            return super().unlink(parent_id, name, ctx)
        path, begin = self.child_path(parent, name), now()
        ruling = self.judge.rule(self._writer(ctx), path, Happened.UNLINK, "unlink")
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "unlink", begin, ctx, path)
        if not self._owner_keeps(path, ruling):
            return super().unlink(parent_id, name, ctx)
        kept = b"%b.conflict.%b.%d" % (name, _file_name(ruling.decision.lane), begin // 1000)
        staged = self._haunt(parent, name, node, self.child_path(parent, kept), ruling, removed=True)
        if staged is None:
            return super().unlink(parent_id, name, ctx)
        before = self.state(node)
        try:
            self.gate()
            directory = self.fds.of(parent)
            self.below.rename(name, kept, src_dir_fd=directory, dst_dir_fd=directory)
            self.done = None
        except OSError:
            self.views.unhaunt(staged)  # type: ignore[union-attr]
            raise
        with self._or_let_go(staged):
            self.expect(parent, name, gone=True)
            self.expect(parent, kept)
            self.nodes.unname(parent, name)
            self._let_it_haunt(staged, node, before)
        self._marked(
            Mark("stage", True, ruling.standing.own, True), "unlink", begin, ctx, path, 0, node, before=before
        )
        return None

    @through
    def rename(
        self, parent_id: int, name: bytes, new_parent_id: int, new_name: bytes, flags: int, ctx: Context
    ) -> None:
        """Rename; a transcript's owner keeps the file under the old name until its fence closes, and sees nothing of
        what takes the name."""
        views, source, target = self.views, self.node(parent_id), self.node(new_parent_id)
        assert views is not None
        moved = self.nodes.entry(source, name)
        self._rename(parent_id, name, new_parent_id, new_name, flags, ctx)
        if views.names:  # the kernel moves its own names, too
            path, to = self.child_path(source, name), self.child_path(target, new_name)
            old, new = self.nodes.entry(source, name), moved or self.nodes.entry(target, new_name)
            views.named(path, 0 if old is None or not flags & pyfuse3.RENAME_EXCHANGE else old.id)
            views.named(to, 0 if new is None else new.id)

    def _rename(
        self, parent_id: int, name: bytes, new_parent_id: int, new_name: bytes, flags: int, ctx: Context
    ) -> None:
        source, target = self.node(parent_id), self.node(new_parent_id)
        further = self._further(source, name)
        if further is not None and self.kind(new_name) is not Kind.TRANSCRIPT:
            act = super().rename
            return self._by_further_name(
                further, ctx, lambda: act(parent_id, name, new_parent_id, new_name, flags, ctx)
            )
        onto = self._fenced_entry(target, new_name, also_absent=True)
        if (
            onto is not None
            and not flags & pyfuse3.RENAME_EXCHANGE
            and self._rename_over(source, name, target, new_name, onto, flags, ctx)
        ):
            return None
        node = self._fenced_entry(source, name)
        if node is None or flags & pyfuse3.RENAME_EXCHANGE:
            return super().rename(parent_id, name, new_parent_id, new_name, flags, ctx)
        path, to = self.child_path(source, name), self.child_path(target, new_name)
        ruling = self.judge.rule(self._writer(ctx), path, Happened.RENAME_AWAY, "rename", path=path, to=to)
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "rename", now(), ctx, path, to=to)
        if not self._owner_keeps(path, ruling):
            return super().rename(parent_id, name, new_parent_id, new_name, flags, ctx)
        staged = self._haunt(source, name, node, to, ruling, removed=False)
        if staged is None:
            return super().rename(parent_id, name, new_parent_id, new_name, flags, ctx)
        held = self.state(node)
        self.mark = Mark("stage", True, ruling.standing.own, True)
        try:
            super().rename(parent_id, name, new_parent_id, new_name, flags, ctx)
            self.done = None
        except OSError:
            self.views.unhaunt(staged)  # type: ignore[union-attr]
            raise
        finally:
            self.mark = UNMARKED
        with self._or_let_go(staged):
            self.nodes.unname(target, new_name)  # the next look makes another node for the new name
            self.forget_entry(target.id, new_name)
            self._let_it_haunt(staged, node, held)
        return None

    def _further(self, parent: Node, name: bytes) -> bytes | None:
        """The transcript of which *name* is a further name, if the policy is to be asked about that."""
        node = self.nodes.entry(parent, name)
        if node is None or node.is_dir or self.views is None or self.kind(name) is Kind.TRANSCRIPT:
            return None
        if node.kind is Kind.TRANSCRIPT:
            return node.path() if self._asks(node.path()) else None
        if not self.judge.machine.places:
            return None
        try:
            if self.stat_node(node).st_nlink < 2:
                return None
        except (
            OSError
        ):  # its name is gone: the operation itself answers that, or was done by an earlier daemon
            return None
        for (
            transcript
        ) in self.judge.machine.transcripts():  # the kernel may have forgotten it by its own name
            if self._asks(transcript) and self._is(transcript, node):
                return transcript
        return None

    def _is(self, transcript: bytes, node: Node) -> bool:
        """Whether *transcript* is a name of the file of *node*."""
        try:
            st = self.below.stat(transcript, dir_fd=self.fds.of(self.nodes.root), follow_symlinks=False)
        except OSError:
            return False
        return (st.st_dev, st.st_ino) == (node.dev, node.ino)

    def _by_further_name(self, transcript: bytes, ctx: Context, act: Callable[[], None]) -> None:
        """What is done to a further name moves the transcript's ctime, which its owner does not get to see."""
        ruling = self.judge.rule(self._writer(ctx), transcript, Happened.ATTRIBUTES, "attributes")
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "attributes", now(), ctx, transcript)
        self._keeping(transcript, None, ruling, act)

    def _fenced_entry(self, parent: Node, name: bytes, *, also_absent: bool = False) -> Node | None:
        """The node of a transcript that somebody may rely on; None if the policy need not be asked. also_absent: the
        directory stands for a name that means nothing."""
        if self.kind(name) is not Kind.TRANSCRIPT or not self._asks(self.child_path(parent, name)):
            return None
        node = self.nodes.entry(parent, name) or self._unasked(parent, name)
        return node or (parent if also_absent else None)

    def _unasked(self, parent: Node, name: bytes) -> Node | None:
        """The node of a file that the kernel knows by another lane's view only."""
        views, path = self.views, self.child_path(parent, name)
        if views is None or path not in views.of:
            return None
        try:
            st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
        except FileNotFoundError:
            return None
        node = self.nodes.remember(parent, name, st, Kind.TRANSCRIPT)
        self.nodes.refer(node, -1)  # the kernel is not told of it
        self.saw(node, st)
        return node

    def _owner_keeps(self, path: bytes, ruling: Ruling) -> bool:
        """Whether somebody relies on the file itself, and this is another's doing."""
        views, machine = self.views, self.judge.machine
        assert views is not None
        if ruling.decision.verdict == "allow" or (ruling.standing.own and ruling.standing.owners):
            return False
        staged = views.of.get(path)
        owners = machine.owners(path)
        if staged is None:
            return bool(owners)
        if staged.staging.write_through(owners) is not None and not staged.staging.ghost:
            return True
        views.keep_for_beginners(path)
        return False

    def _haunt(
        self, parent: Node, name: bytes, node: Node, to: bytes, ruling: Ruling, *, removed: bool
    ) -> Staged | None:
        views = self.views
        assert views is not None
        path = self.child_path(parent, name)
        try:
            staged = views.staged(path)
            if staged is None:
                return None
            views.meet(staged, node)
            self.fds.pin(node)
            views.haunt(staged, to, self.stat_node(node), ruling.decision.lane, removed=removed)
            staged.holding = self.state(node)
            if self.keeper is not None:
                self.keeper.now()
        except OSError as error:
            views.could_not(path, "unlink" if removed else "rename", error)
            return None
        return staged

    def _instead_of_unlink(self, parent_id: int, name: bytes, ctx: Context) -> None:
        self._haunt_nothing()
        super().unlink(parent_id, name, ctx)

    def _instead_of_rename(
        self, parent_id: int, name: bytes, new_parent_id: int, new_name: bytes, flags: int, ctx: Context
    ) -> None:
        self._haunt_nothing()
        super().rename(parent_id, name, new_parent_id, new_name, flags, ctx)

    def _haunt_nothing(self) -> None:
        """Of what was about to be a ghost nothing is left."""
        views = self.views
        for staged in () if views is None else views.of.values():
            if not staged.staging.ghost:
                views.unhaunt(staged)  # type: ignore[union-attr]

    @contextmanager
    def _or_let_go(self, staged: Staged) -> Iterator[None]:
        """The name is gone. If its owner cannot keep the file all the same, then it is without a guard."""
        try:
            yield
        except Exception:
            self.views.unhaunt(staged)  # type: ignore[union-attr]
            raise

    def _let_it_haunt(self, staged: Staged, node: Node, held: Fingerprint | None) -> None:
        assert self.views is not None
        staged.holding = None
        if held is not None:
            self.views.haunted(staged, node, held)

    def _take_content(self, live: Live, source: Node, name: bytes) -> Replaced | None:
        """The branch *live* becomes what the file *name* is; what it was. An earlier daemon may have done that, and
        have removed the file: then None."""
        views = self.views
        assert views is not None
        try:
            fd = self.open_below(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fds.of(source))
        except FileNotFoundError:
            if self.again and live.file.facts.replaces:
                return None
            raise
        try:
            return views.replace(live, fd, self.below.fstat(fd))
        finally:
            let_go(fd)

    def _rename_over(
        self,
        source: Node,
        name: bytes,
        target: Node,
        new_name: bytes,
        onto: Node,
        flags: int,
        ctx: Context,
    ) -> bool:
        """Whether another file's taking of a transcript's name was staged."""
        views = self.views
        assert views is not None
        begin = now()
        path, to = self.child_path(source, name), self.child_path(target, new_name)
        ruling = self.judge.rule(self._writer(ctx), to, Happened.RENAME_OVER, "rewrite", path=path, to=to)
        if ruling.decision.verdict == "deny":
            self._refuse(ruling, "rename", begin, ctx, path, to=to)
        if not self._owner_keeps(to, ruling) or (flags and onto is not target):
            return False
        moved = self.nodes.entry(source, name)
        live = self._where(to, self._writer(ctx), ruling, node=onto, what="rename")
        if live is None:
            return False
        did = (
            self.again and moved is None and live.file.facts.replaces
        )  # an earlier daemon came to the end of it
        moved = live.node if did else moved
        if moved is None or (moved.kind is Kind.TRANSCRIPT and not did):
            return did
        before = live.branch.shown
        try:
            self.gate()
            if not did:
                was = self._take_content(live, source, name)
                try:
                    self._about_to_lose(moved)
                    self.below.unlink(name, dir_fd=self.fds.of(source))
                except BaseException:
                    if was is not None:
                        views.unreplace(live, was)
                    raise
        except OSError as error:
            views.could_not(to, "rename", error)
            return False
        self.done = None
        views.keep_replaced(live)
        self.expect(source, name, gone=True)
        self.nodes.unname(source, name)
        self._lost(moved)
        # The kernel moves what it knows of the old name to the new one: until it has forgotten that, it leads here.
        moved.names, moved.view, moved.kind = [(target, new_name)], live, Kind.TRANSCRIPT
        self.nodes.detach(moved)
        self.nodes.changed(moved)
        if live.node is None:
            live.node = moved
        self.forget_entry(target.id, new_name)
        self.forget_node(moved.id)
        self._marked(
            self._mark_of(live),
            "rename",
            begin,
            ctx,
            path,
            0,
            moved,
            to=to,
            operation="rewrite",
            replaced=before,
        )
        return True


def _file_name(lane: str) -> bytes:
    return lane.replace(":", "-").replace("/", "-").encode("utf-8", "surrogateescape")[:80]
