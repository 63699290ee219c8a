"""Ghosts: files whose name was taken away while their owner relies on them."""

from __future__ import annotations

import logging
import os

import msgspec

from guardfs.audit.event import Kind, Notice
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.staging import Branch, Key
from guardfs.mount.nodes import Node
from guardfs.mount.views.live import Live, Staged, fingerprint, text
from guardfs.mount.views.rebasing import Rebasing
from guardfs.state.branches import BranchFacts, GhostFacts

log = logging.getLogger("guardfs.views")


class Haunting(Rebasing):
    """The owner keeps the file; what it writes there goes where it belongs when its fence closes."""

    def haunt(self, staged: Staged, name: bytes, st: os.stat_result, lane: str, *, removed: bool) -> None:
        """Before the transcript's name is taken away: the owner is to keep the file. name: the one that it gets, below
        the mount. OSError where the journal cannot be written, or the file is gone."""
        ghost = GhostFacts(
            transcript=staged.staging.transcript,
            name=name,
            inode=st.st_ino,
            device=st.st_dev,
            size=st.st_size,
            removed=removed,
            lane=lane,
        )
        assert staged.node is not None
        staged.ghost_fd = os.dup(self._core.fds.of(staged.node))
        try:
            staged.ghost = (self._store.haunt(ghost), ghost)
        except BaseException:
            os.close(staged.ghost_fd)
            staged.ghost_fd = -1
            raise

    def made_anew(self, staged: Staged) -> None:
        """While the owner goes on with its file, another one is made under the name."""
        if staged.ghost is not None and not staged.ghost[1].anew:
            number, ghost = staged.ghost
            ghost = msgspec.structs.replace(ghost, anew=True)
            self._store.renew(number, ghost)
            staged.ghost = (number, ghost)

    def unhaunt(self, staged: Staged) -> None:
        """It came to nothing."""
        if staged.ghost is not None:
            self._store.rest(staged.ghost[0])
            staged.ghost = None
            os.close(staged.ghost_fd)
            staged.ghost_fd = -1

    def haunted(self, staged: Staged, node: Node, held: Fingerprint) -> None:
        """The name is taken away: *node* leads to the file all the same, for the owner alone, who goes on seeing
        *held*."""
        core = self._core
        core.nodes.detach(node)
        core.nodes.shared[node.dev, node.ino] = node.file
        node.names = [(staged.parent, staged.name)]
        node.kind = Kind.TRANSCRIPT
        node.view = staged
        staged.node = node
        staged.staging.ghost = True
        st = core.stat_node(node)
        core.left(node, st)
        real = fingerprint(st)
        if real != held:
            staged.staging.keep(held, real)

    def echo(self, staged: Staged) -> None:
        """The owner has written to its nameless file: who knows that by its new name is to see it."""
        if staged.ghost_fd < 0:
            return
        twin = self._core.nodes.of_file(os.fstat(staged.ghost_fd))
        if twin is not None:
            self._core.forget_node(twin.id)

    def _rest(self, staged: Staged, place: tuple[Node, bytes], *, waits: bool) -> None:
        """Nobody relies on the nameless file any more: what its owner wrote since goes where the name is now. waits:
        branches are to be added to it."""
        assert staged.ghost is not None
        core, (number, ghost), node = self._core, staged.ghost, staged.node
        tail, written = b"", 0
        try:
            fd = core.below.open(b"/proc/self/fd/%d" % staged.ghost_fd, os.O_RDONLY | os.O_CLOEXEC)
            try:
                st = core.below.fstat(fd)
                tail, written = (
                    core.below.pread(fd, max(0, st.st_size - ghost.size), ghost.size),
                    st.st_mtime_ns,
                )
            finally:
                core.below.close(fd)
        except OSError as error:
            log.warning("%s: cannot read what its owner wrote: %s", text(ghost.transcript), error)
            return
        named = ghost.anew and self._exists(staged)
        live = self._carry(staged, number, ghost, tail, written) if tail and named else None
        if ghost.removed and (named or not (tail or waits)):
            self._remove(ghost)
        elif ghost.removed:
            log.warning(
                "%s: removed while %s was writing it; it is kept as %s",
                text(ghost.transcript),
                ghost.lane,
                text(ghost.name),
            )
            self.conflicts += 1
        self._store.rest(number)
        if live is not None:
            self._rebase(staged, live, place)
        if node is not None:
            node.view = None
            node.names = []
            core.forget_node(node.id)
            self.unknown(node)
        core.forget_entry(staged.parent.id, staged.name)
        self.named(ghost.transcript, 0)
        staged.ghost, staged.staging.ghost = None, False
        core.nodes.shared.pop((ghost.device, ghost.inode), None)
        os.close(staged.ghost_fd)
        staged.ghost_fd = -1
        staged.node = core.nodes.entry(staged.parent, staged.name)
        core.audit.emit(
            Notice(
                "ghost",
                core.clock(),
                {"change": "ended", "file": text(ghost.name), "carried": len(tail) if named else 0},
                ghost.transcript,
            )
        )

    def _carry(self, staged: Staged, number: int, ghost: GhostFacts, tail: bytes, written: int) -> Live:
        """What the owner wrote behind the ghost's *size* becomes the first branch."""
        wall = self._core.clock()
        file = self._store.create(
            lambda new: BranchFacts(
                number=new,
                transcript=ghost.transcript,
                lane=ghost.lane or "owner",
                key="ghost",
                exists=False,
                whole=True,
                opened=wall,
            ),
            [tail],
            follows=number,
            written=written,
        )
        branch = Branch(file.number, Key("lane", (0, 0), ""), "owner", ABSENT, order=0, wall=wall)
        branch.wrote(len(tail), written)
        live = Live(staged, branch, file, -1)
        staged.lives[branch.number] = live
        staged.staging.branches.append(branch)
        return live

    def _exists(self, staged: Staged) -> bool:
        core = self._core
        try:
            core.below.stat(staged.name, dir_fd=core.fds.of(staged.parent), follow_symlinks=False)
        except OSError:
            return False
        return True

    def _remove(self, ghost: GhostFacts) -> None:
        core = self._core
        place = self._locate(ghost.name)
        if place is None:
            return
        parent, name = place
        try:
            core.below.unlink(name, dir_fd=core.fds.of(parent))
        except OSError as error:
            log.warning("%s: cannot be removed: %s", text(ghost.name), error.strerror)
            return
        self._store.step("ghost.removed")
        core.expect(parent, name, gone=True)
        core.nodes.unname(parent, name)
        core.forget_entry(parent.id, name)
