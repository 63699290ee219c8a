"""When branches are rebased, and what must lead to the file then."""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from guardfs.closing import let_go
from guardfs.mount.merging import Merged
from guardfs.mount.nodes import Node
from guardfs.mount.recovery import stamp

if TYPE_CHECKING:
    from guardfs.mount.operations.parts import Handle

from guardfs.mount.views.branching import Branching
from guardfs.mount.views.live import Live, Staged, text

log = logging.getLogger("guardfs.views")

_BEHIND_NS = 1_000_000_000
"""How long somebody may take from the lookup of an open to the open, at the most."""

_ADOPTED = 64
"""Nodes of former branches that keep a descriptor meanwhile."""


class Rebasing(Branching):
    """The end of branches. merged, failed, conflicts: counts. failing: why the last try failed, by branch."""

    def _rebase(self, staged: Staged, live: Live, place: tuple[Node, bytes]) -> bool:
        """Whether it is done; if not, it stays and is tried again."""
        core, branch = self._core, live.branch
        parent, name = place
        self.busy(live.file.size)
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
        try:
            self._done(staged, live, parent, merged)
        finally:
            if live.base_fd >= 0:
                let_go(live.base_fd)
                live.base_fd = -1
        return True

    def at_once(self, live: Live) -> bool:
        """Rebase *live* now, whoever relies on the file: its lane goes on there. Whether that could be done."""
        try:
            return self._rebase(live.staged, live, self.place(live.staged))
        except OSError:
            return False

    def open_file(self, staged: Staged) -> int:
        """The file that branches of *staged* belong to, to be appended to; made if there is none. OSError."""
        core = self._core
        parent, name = self.place(staged)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        mode = next((live.file.facts.mode for live in staged.lives.values()), 0o600)
        return core.below.open(name, flags, mode, dir_fd=core.fds.of(parent))

    def onto(self, fd: int, data: bytes) -> bytes:
        """*data* as it is to be appended to the open file *fd*, though other records of its lane wait: on its leaf."""
        return self._merger.onto(fd, self._core.below.fstat(fd).st_size, data).data

    def place(self, staged: Staged) -> tuple[Node, bytes]:
        """Where branches belong: what belongs to a file goes with it, to its new name. OSError: it cannot be told."""
        lost = staged.ghost or staged.resting
        if lost is None:
            return staged.parent, staged.name
        ghost = lost[1]
        if (ghost.anew or staged.ghost is None) and self._exists(staged):
            return staged.parent, staged.name
        return self._locate(ghost.name) or (staged.parent, staged.name)

    def _exists(self, staged: Staged) -> bool:
        core = self._core
        try:
            core.below.stat(staged.name, dir_fd=core.fds.of(staged.parent), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _done(self, staged: Staged, live: Live, parent: Node, merged: Merged) -> None:
        """The branch is in a file now: what leads to it must lead there."""
        core, branch = self._core, live.branch
        branch.closed = True
        staged.staging.branches.remove(branch)
        del staged.lives[branch.number]
        unnamed = self._settle_file(staged, parent, merged.name)
        anew = merged.result == "replaced"
        for handle in live.handles:
            if handle.journal or merged.result != "conflict":  # the file may have been written anew meanwhile
                self._reopen(parent, handle, merged.name, live.base_fd)
                if not handle.node.names:
                    self._adopt(parent, handle.node, merged.name)
            handle.live = None
            if not handle.append and handle.follows < 0:
                handle.follows = branch.length
                handle.own_from = branch.length if branch.whole else branch.base
                core.keep_marks(handle)
        if anew and not live.file.facts.replaces:
            self._follow_rewrite(parent, (live.file.facts.device, live.file.facts.inode), merged.name)
        if unnamed is not None and not (unnamed.names or unnamed.opened):
            unnamed.view = None
            self._lead_on(parent, unnamed, merged.name)
            unnamed = None
        if anew:
            self._leave_behind(parent, merged.name, unnamed)
        node = live.node
        if node is not None:
            node.view = None
            self._adopt(parent, node, merged.name)
            self._keep_adopted(node)
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

    def _keep_adopted(self, node: Node) -> None:
        """*node* was a branch's, and somebody may be about to open it: for a while it goes on leading to its file,
        whatever becomes of the name. The kernel may remember it for days."""
        core, mono = self._core, time.monotonic_ns()
        for number, (each, since) in list(self._adopted.items()):
            if mono - since < _BEHIND_NS and len(self._adopted) < _ADOPTED:
                break
            del self._adopted[number]
            if core.nodes.get(number) is each:
                core.fds.drop(each)
        if core.nodes.get(node.id) is not node or node.nlookup <= 0:
            return
        try:
            core.fds.pin(node)
        except OSError as error:
            log.warning("%s: no descriptor can be kept: %s", text(node.path()), error.strerror)
        self._adopted[node.id] = node, mono

    def _leave_behind(self, parent: Node, name: bytes, before: Node | None) -> None:
        """A rebase has put another file under *name* than *before* leads to, or nodes that were branches': who has just
        been answered with one of these, and is about to open it, is to come to the new file."""
        core = self._core
        try:
            st = core.below.stat(name, dir_fd=core.fds.of(parent), follow_symlinks=False)
        except OSError:
            return
        nodes = [
            node
            for node, _ in self._adopted.values()
            if node.names == [(parent, name)] and (node.dev, node.ino) != (st.st_dev, st.st_ino)
        ]
        if before is not None:
            nodes.append(before)
        mono = time.monotonic_ns()
        self._behind = {number: each for number, each in self._behind.items() if mono - each[2] < _BEHIND_NS}
        self._behind.update((node.id, (parent, name, mono)) for node in nodes)

    def left_behind(self, node: Node, tid: int) -> tuple[Node, bytes] | None:
        """Directory and name of the file that has just taken the place of the one of *node*, by a rebase; None also
        where thread *tid* has been told to look again since, and has come to *node* by a further name of its file."""
        found = self._behind.get(node.id)
        if found is None:
            return None
        parent, name, mono = found
        if time.monotonic_ns() - mono >= _BEHIND_NS:
            return None
        path = self._core.child_path(parent, name)
        return None if self._told.get((path, tid), 0) > mono else (parent, name)

    def _follow_rewrite(self, parent: Node, before: tuple[int, int], name: bytes) -> None:
        """A file that was written anew is another one below than *before*, a device and inode, and the same to whoever
        has it open."""
        core = self._core
        handles = [
            handle
            for handle in core.handles.values()
            if handle.live is None and (handle.node.dev, handle.node.ino) == before
        ]
        for node in {handle.node for handle in handles}:
            self._lead_on(parent, node, name)
        for handle in handles:
            self._reopen(parent, handle, name)

    def find_file(self, handle: Handle) -> None:
        """*handle* could not follow the rebase of its branch: once more. OSError if it cannot now either."""
        for parent, name in handle.node.names[-1:]:
            self._reopen(parent, handle, name)
        if handle.journal:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _settle_file(self, staged: Staged, parent: Node, name: bytes) -> Node | None:
        """The guard itself has changed or made the file *name*. The node that the kernel knew by this name, if another
        file has it now. Whoever has looked it up already, and is about to open it, comes with that node."""
        core = self._core
        try:
            st = core.below.stat(name, dir_fd=core.fds.of(parent), follow_symlinks=False)
        except OSError:
            return None
        node, unnamed = core.nodes.entry(parent, name), None
        if node is not None and (node.dev, node.ino) != (st.st_dev, st.st_ino):
            core.expect(parent, name)
            core.nodes.unname(parent, name)
            core.nodes.detach(node)
            core.forget_entry(parent.id, name)
            unnamed = node
        elif node is not None:
            core.left(node, st)
        else:
            core.expect(parent, name)
            core.forget_node(parent.id)
        if (parent, name) == (staged.parent, staged.name):
            core.judge.machine.moved(staged.staging.transcript)
        return unnamed

    def _reopen(self, parent: Node, handle: Handle, name: bytes, base_fd: int = -1) -> None:
        """*handle* leads to the file *name* from now on; where there is none any more, to *base_fd*, the file that had
        the name. Where it cannot, it leads nowhere (`find_file`)."""
        core = self._core
        flags = (handle.flags & (os.O_ACCMODE | os.O_APPEND)) | os.O_CLOEXEC
        handle.journal = True
        try:
            try:
                fd = core.below.open(name, flags | os.O_NOFOLLOW, dir_fd=core.fds.of(parent))
            except FileNotFoundError:
                if base_fd < 0:
                    raise
                fd = core.below.open(b"/proc/self/fd/%d" % base_fd, flags)
            try:
                os.dup2(fd, handle.fd, inheritable=False)
            finally:
                let_go(fd)
        except OSError as error:
            log.warning("%s: an open file cannot follow the rebase yet: %s", text(name), error.strerror)
            return
        handle.journal = False

    def _lead_on(self, parent: Node, node: Node, name: bytes) -> None:
        """A node whose file was written anew leads to the new one."""
        self._core.fds.drop(node)
        self._adopt(parent, node, name)

    def _adopt(self, parent: Node, node: Node, name: bytes) -> None:
        """A node that was a branch's is one more name of the file."""
        core = self._core
        try:
            st = core.below.stat(name, dir_fd=core.fds.of(parent), follow_symlinks=False)
        except OSError:
            return
        node.dev, node.ino, node.names = st.st_dev, st.st_ino, [(parent, name)]
        core.nodes.changed(node)
        twin = core.nodes.entry(parent, name)
        if twin is not None and (twin.dev, twin.ino) == (st.st_dev, st.st_ino):
            node.file = twin.file
        else:
            core.left(node, st)
