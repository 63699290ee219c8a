"""When branches are rebased, and what must lead to the file then."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from guardfs.mount.merging import Merged
from guardfs.mount.nodes import Node
from guardfs.mount.recovery import stamp

if TYPE_CHECKING:
    from guardfs.mount.operations.core import Handle

from guardfs.mount.views.branching import Branching
from guardfs.mount.views.live import Live, Staged, text

log = logging.getLogger("guardfs.views")


class Rebasing(Branching):
    """The end of branches. merged, failed, conflicts: counts. failing: why the last try failed, by branch."""

    def _rebase(self, staged: Staged, live: Live, place: tuple[Node, bytes]) -> bool:
        """Whether it is done; if not, it stays and is tried again."""
        core, branch = self._core, live.branch
        parent, name = place
        try:
            merged = self._merger.merge(live.file, core.fds.of(parent), name, stamp(core.clock()))
        except OSError as error:
            why = error.strerror or str(error)
            if self.failing.get(branch.number) != why:  # tried every second, told once
                self.failing[branch.number] = why
                self.failed += 1
                log.warning("%s: cannot rebase branch %d yet: %s", text(name), branch.number, error)
                self._tell(staged, branch, "failed", error=why)
            return False
        self.failing.pop(branch.number, None)
        self._done(staged, live, parent, merged)
        return True

    def _done(self, staged: Staged, live: Live, parent: Node, merged: Merged) -> None:
        """The branch is in a file now: what leads to it must lead there."""
        core, branch = self._core, live.branch
        branch.closed = True
        staged.staging.branches.remove(branch)
        del staged.lives[branch.number]
        if live.base_fd >= 0:
            os.close(live.base_fd)
        self._settle_file(staged, parent, merged.name)
        for handle in live.handles:
            if handle.journal:
                self._reopen(parent, handle, merged.name)
            handle.live = None
        node = live.node
        if node is not None:
            node.view = None
            self._adopt(parent, node, merged.name)
            core.forget_node(node.id)
        if merged.result == "empty":
            self._tell(staged, branch, "dropped")
            return
        self.merged += 1
        self.conflicts += merged.result == "conflict"
        facts: dict[str, Any] = {
            "result": merged.result,
            "bytes": merged.added,
            "records": merged.records,
            "moved": merged.moved,
        }
        if merged.dropped:
            facts["dropped"] = merged.dropped
        if merged.unparsed:
            facts["unparsed"] = merged.unparsed
        if merged.result == "conflict":
            facts["file"] = text(merged.name)
            log.warning(
                "%s: what %s wrote cannot be merged; it is kept as %s",
                text(staged.name),
                branch.lane,
                text(merged.name),
            )
        self._tell(staged, branch, "rebased", **facts)

    def _settle_file(self, staged: Staged, parent: Node, name: bytes) -> None:
        """The guard itself has changed or made the file *name*."""
        core = self._core
        try:
            st = core.below.stat(name, dir_fd=core.fds.of(parent), follow_symlinks=False)
        except OSError:
            return
        node = core.nodes.entry(parent, name)
        if node is not None and (node.dev, node.ino) != (st.st_dev, st.st_ino):
            core.expect(parent, name)
            core.nodes.unname(parent, name)
            core.nodes.detach(node)
            core.forget_entry(parent.id, name)
            self.named(core.child_path(parent, name), 0)
        elif node is not None:
            core.left(node, st)
        else:
            core.expect(parent, name)
            core.forget_node(parent.id)
        if (parent, name) == (staged.parent, staged.name):
            core.judge.machine.moved(staged.staging.transcript)

    def _reopen(self, parent: Node, handle: Handle, name: bytes) -> None:
        core = self._core
        flags = (handle.flags & (os.O_ACCMODE | os.O_APPEND)) | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = core.below.open(name, flags, dir_fd=core.fds.of(parent))
        except OSError as error:
            log.warning("%s: an open file cannot follow the rebase: %s", text(name), error.strerror)
            return
        os.dup2(fd, handle.fd, inheritable=False)
        handle.journal = False
        core.below.close(fd)

    def _adopt(self, parent: Node, node: Node, name: bytes) -> None:
        """A node that was a branch's is one more name of the file."""
        core = self._core
        try:
            st = core.below.stat(name, dir_fd=core.fds.of(parent), follow_symlinks=False)
        except OSError:
            return
        node.dev, node.ino, node.names = st.st_dev, st.st_ino, [(parent, name)]
        twin = core.nodes.entry(parent, name)
        if twin is not None and (twin.dev, twin.ino) == (st.st_dev, st.st_ino):
            node.file = twin.file
        else:
            core.left(node, st)
