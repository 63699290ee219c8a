"""Ghosts: files whose name was taken away while their owner relies on them."""

from __future__ import annotations

import logging
import os

import msgspec

from guardfs.audit.event import Kind, Notice
from guardfs.closing import let_go
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.staging import Branch, Key
from guardfs.mount.nodes import Node
from guardfs.mount.views.live import Live, Staged, fingerprint, text
from guardfs.mount.views.rebasing import Rebasing
from guardfs.state.branches import BranchFacts, GhostFacts, read_all

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
        fd = os.dup(self._core.fds.of(staged.node))
        try:
            staged.ghost = (self._store.haunt(ghost), ghost)
        except BaseException:
            let_go(fd)
            raise
        staged.ghost_fd = fd

    def made_anew(self, staged: Staged) -> None:
        """While the owner goes on with its file, another one is made under the name."""
        if staged.ghost is not None and not staged.ghost[1].anew:
            number, ghost = staged.ghost
            ghost = msgspec.structs.replace(ghost, anew=True)
            self._store.renew(number, ghost)
            staged.ghost = (number, ghost)

    def unhaunt(self, staged: Staged) -> None:
        """It came to nothing. If that cannot be written, the next guard finds the file under its old name."""
        if staged.ghost is not None:
            self._forget_note(*staged.ghost)
            staged.ghost, staged.staging.ghost, staged.holding = None, False, None
            let_go(staged.ghost_fd)
            staged.ghost_fd = -1

    def haunted(self, staged: Staged, node: Node, held: Fingerprint) -> None:
        """The name is taken away: *node* leads to the file all the same, for the owner alone, who goes on seeing
        *held*."""
        core = self._core
        try:
            st = core.stat_node(node)
        except OSError as error:
            self.could_not(staged.staging.transcript, "rename", error)
            st = None
        core.nodes.detach(node)
        core.nodes.shared[node.dev, node.ino] = node.file
        node.names = [(staged.parent, staged.name)]
        node.kind = Kind.TRANSCRIPT
        core.nodes.changed(node)
        node.view = staged
        staged.node = node
        staged.staging.ghost = True
        if st is None:
            return  # what it is like now is not known, so it cannot be hidden
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

    def _stays(self, staged: Staged, error: OSError) -> None:
        """A nameless file could not be seen to: it is tried again, with the branches that wait behind it."""
        assert staged.ghost is not None
        number, ghost = staged.ghost
        why = error.strerror or str(error)
        if self.failing.get(number) == why:
            return
        self.failing[number] = why
        self.failed += 1
        log.warning("%s: what its owner wrote cannot be seen to yet: %s", text(ghost.transcript), error)
        self._core.audit.emit(
            Notice(
                "ghost",
                self._core.clock(),
                {"change": "failed", "file": text(ghost.name), "error": why},
                ghost.transcript,
            )
        )

    def _rest(self, staged: Staged, place: tuple[Node, bytes], *, waits: bool) -> None:
        """Nobody relies on the nameless file any more: what its owner wrote since goes where the name is now. waits:
        branches are to be added to it; its note stays until they are (`_rested`), so that they come there whatever
        happens. OSError: not now, but at the next attempt."""
        assert staged.ghost is not None
        number, ghost = staged.ghost
        tail, written = self._tail(staged, ghost)
        named = ghost.anew and self._exists(staged)
        live = self._carried(staged, number)
        if live is None and tail and named:
            live = self._carry(staged, number, ghost, tail, written)
        goes = ghost.removed and (named or not (tail or waits))
        if goes:
            self._remove(ghost)
        if waits and not named:
            staged.resting = staged.ghost
        else:
            self._store.rest(number)
        self.failing.pop(number, None)
        if ghost.removed and not goes:
            log.warning(
                "%s: removed while %s was writing it; it is kept as %s",
                text(ghost.transcript),
                ghost.lane,
                text(ghost.name),
            )
            self.conflicts += 1
        self._exorcise(staged, ghost)
        self._core.audit.emit(
            Notice(
                "ghost",
                self._core.clock(),
                {"change": "ended", "file": text(ghost.name), "carried": len(tail) if named else 0},
                ghost.transcript,
            )
        )
        if live is not None:
            self._rebase(staged, live, place)

    def _rested(self, staged: Staged) -> None:
        """What waited behind the nameless file is in it."""
        if staged.resting is None:
            return
        self._forget_note(*staged.resting)
        staged.resting = None

    def _forget_note(self, number: int, ghost: GhostFacts) -> None:
        """There is nothing to do for *ghost* any more, which the next guard finds, too, if its note stays."""
        try:
            self._store.rest(number)
        except OSError as error:
            log.warning("%s: its note cannot be removed: %s", text(ghost.transcript), error.strerror)

    def _tail(self, staged: Staged, ghost: GhostFacts) -> tuple[bytes, int]:
        """What the owner wrote since, and when."""
        core = self._core
        fd = core.below.open(b"/proc/self/fd/%d" % staged.ghost_fd, os.O_RDONLY | os.O_CLOEXEC)
        try:
            st = core.below.fstat(fd)
            tail = read_all(core.below.pread, fd, max(0, st.st_size - ghost.size), ghost.size)
            return tail, st.st_mtime_ns
        finally:
            let_go(fd)

    def _exorcise(self, staged: Staged, ghost: GhostFacts) -> None:
        """No node leads to the nameless file any more."""
        core, node = self._core, staged.node
        if node is not None:
            node.view = None
            node.names = []
            core.nodes.changed(node)
            core.forget_node(node.id)
            self.unknown(node)
        core.forget_entry(staged.parent.id, staged.name)
        staged.ghost, staged.staging.ghost = None, False
        core.nodes.shared.pop((ghost.device, ghost.inode), None)
        let_go(staged.ghost_fd)
        staged.ghost_fd = -1
        staged.node = core.nodes.entry(staged.parent, staged.name)

    def _carried(self, staged: Staged, number: int) -> Live | None:
        """What `_carry` has made of the ghost *number* already."""
        for live in staged.lives.values():
            if live.file.facts.follows == number:
                return live
        return None

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
            synced=ghost.removed,  # its owner may have called fsync, and the file that has it is about to go
        )
        branch = Branch(file.number, Key("lane", (0, 0), ""), "owner", ABSENT, order=0, wall=wall)
        branch.wrote(len(tail), written)
        live = Live(staged, branch, file, -1)
        staged.lives[branch.number] = live
        staged.staging.branches.append(branch)
        return live

    def _remove(self, ghost: GhostFacts) -> None:
        core = self._core
        place = self._locate(ghost.name)
        if place is None:
            return
        parent, name = place
        try:
            core.below.unlink(name, dir_fd=core.fds.of(parent))
        except FileNotFoundError:
            return  # it went at an attempt before, or below the mount
        self._store.step("ghost.removed")
        core.expect(parent, name, gone=True)
        core.nodes.unname(parent, name)
        core.forget_entry(parent.id, name)
