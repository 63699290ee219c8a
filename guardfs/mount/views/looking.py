"""Whose view a look is answered with, and by which node."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from guardfs.audit.event import Kind, Notice
from guardfs.fence.events import Kind as Happened
from guardfs.fence.staging import Branch, View
from guardfs.fence.waits import Waits
from guardfs.lanes.writer import Writer
from guardfs.mount.merging import Merger
from guardfs.mount.nodes import Node
from guardfs.state.branches import BranchStore

if TYPE_CHECKING:
    from guardfs.mount.operations.core import Core

from guardfs.mount.views.live import Live, Staged, text

log = logging.getLogger("guardfs.views")

_INTENTS = 1024
"""Threads that were told to look again, and have not yet; of more, all are forgotten."""

_REPEAT_NS = 1_000_000_000
"""How soon the kernel asks again, at the latest. It takes microseconds, but on a machine that has much else to do the
caller's thread may not run for hundreds of milliseconds."""

_INTENT_NS = 1_000_000_000
"""How long such a thread may take. It looks at once, but twice where it makes the file (fuse_atomic_open in Linux)."""

MAX_ERRORS = 3
"""Internal errors on one transcript after which nothing is enforced for it."""


class Looking:
    """Transcripts with more than one view, and the nodes of these. of: by path below the mount. passed: changes that
    could not be staged, and went through. given_up: transcripts for which nothing is enforced any more, because that
    went wrong too often. names: the node that the kernel holds for a transcript's name, 0 for none, where it has been
    answered with more than one lately. touched: transcripts of which the next daemon may have to know more than it
    does. busy: told the size of a branch before it is rebased, bytes."""

    def __init__(self, core: Core, store: BranchStore, merger: Merger) -> None:
        self._core = core
        self._store = store
        self._merger = merger
        self.of: dict[bytes, Staged] = {}
        self.names: dict[bytes, int] = {}
        self._told: dict[tuple[bytes, int], int] = {}
        self._repeats: dict[tuple[bytes, int], int] = {}
        self._adopted: dict[int, tuple[Node, int]] = {}
        self._behind: dict[int, tuple[Node, bytes, int]] = {}
        self._order = 0
        self.merged = self.failed = self.conflicts = self.passed = 0
        self.failing: dict[int, str] = {}
        self._errors: dict[bytes, int] = {}
        self.given_up: set[bytes] = set()
        self.touched: set[bytes] = set()
        self.busy: Callable[[int], None] = lambda size: None
        self.waits = Waits()

    @property
    def order(self) -> int:
        """The number of the last branch, or close of a fence, in order."""
        return self._order

    def transient(self, transcript: bytes) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The threads that were told to look at *transcript* again, and those whose next look is the second half of
        their last, each with its time (monotonic ns)."""
        found = [
            [(tid, when) for (name, tid), when in known.items() if name == transcript] if known else []
            for known in (self._told, self._repeats)
        ]
        return found[0], found[1]

    def recall(
        self,
        transcript: bytes,
        names: int | None,
        told: list[tuple[int, int]],
        repeats: list[tuple[int, int]],
        order: int,
    ) -> None:
        """Go on from what an earlier daemon knew."""
        if names is not None:
            self.names[transcript] = names
        self._told.update({(transcript, tid): when for tid, when in told})
        self._repeats.update({(transcript, tid): when for tid, when in repeats})
        self._order = max(self._order, order)

    def staged(self, transcript: bytes) -> Staged | None:
        """The entry of *transcript*, made if need be; None if the kernel does not know its directory."""
        found = self.of.get(transcript)
        self.touched.add(transcript)
        if found is None:
            place = self._locate(transcript)
            if place is None:
                return None
            parent, name = place
            node = self._core.nodes.entry(parent, name)
            found = self.of[transcript] = Staged(transcript, parent, name, node)
            self.names.setdefault(transcript, 0 if node is None else node.id)
        if found.ghost is None:
            self.meet(found, self._core.nodes.entry(found.parent, found.name))
        return found

    def meet(self, staged: Staged, node: Node | None) -> None:
        """*node* is what the kernel knows the owner's view by; it may have forgotten another one."""
        staged.node = node
        if node is None:
            return
        if node.view is None:
            node.view = staged
        outside = staged.outside
        if outside is not None and (outside.dev, outside.ino) == (node.dev, node.ino):
            outside.file = node.file  # what is done by the one is known of the other

    def _locate(self, transcript: bytes) -> tuple[Node, bytes] | None:
        node = self._core.nodes.root
        *directories, name = transcript.split(b"/")
        for part in directories:
            found = self._core.nodes.entry(node, part)
            if found is None:
                return None
            node = found
        return node, name

    def look(self, staged: Staged, writer: Writer) -> Live | View:
        """What a look by *writer* is to find."""
        intent = staged.intents.get(writer.tid)
        if intent is not None:
            view, when = intent
            gone = isinstance(view, Live) and view.branch.closed
            if time.monotonic_ns() - when < _INTENT_NS and not gone:
                return view
            del staged.intents[writer.tid]
        judge, staging = self._core.judge, staged.staging
        standing = judge.standing(writer, staging.transcript, Happened.LOOK)
        lane = ""
        if not standing.own and any(branch.key.kind == "lane" for branch in staging.branches):
            lane = judge.lane(writer, staging.transcript)
        found = staging.view(standing, judge.actor(writer).process, lane)
        return found if isinstance(found, View) else staged.lives[found.number]

    def repeats(self, transcript: bytes, tid: int) -> bool:
        """Whether this look of thread *tid* is the second half of its last one: a kernel that is answered with another
        node than it holds drops that, and asks again (fuse_dentry_revalidate in Linux). The agent has looked once."""
        self.touched.add(transcript)
        when = self._repeats.pop((transcript, tid), None)
        return when is not None and time.monotonic_ns() - when < _REPEAT_NS

    def answered(self, transcript: bytes, tid: int, node_id: int, *, repeated: bool = False) -> None:
        """A look of thread *tid* was answered with *node_id*; 0: there is nothing. repeated: it was asked for the
        second time, so the kernel has dropped the name, whatever others were answered meanwhile, and asks no more."""
        before = self.names.get(transcript, 0)
        if not repeated and before not in (0, node_id) and self._core.nodes.get(before) is not None:
            self.names[transcript] = 0
            if len(self._repeats) >= _INTENTS:
                self._repeats.clear()
            self._repeats[transcript, tid] = time.monotonic_ns()
        elif transcript in self.of:
            self.names[transcript] = node_id
        else:
            self.names.pop(transcript, None)

    def named(self, transcript: bytes, node_id: int) -> None:
        """The kernel holds *node_id* for the name *transcript*, and not because of a look; 0: nothing."""
        if transcript in self.names:
            self.names[transcript] = node_id
            self.touched.add(transcript)

    def unknown(self, node: Node) -> None:
        """*node* is needed no more: it goes, if the kernel does not know it."""
        if node.nlookup <= 0:
            self._core.nodes.forget(node.id, 0)
            self._core.fds.drop(node)

    def again(self, staged: Staged, tid: int, view: Live | View) -> bool:
        """Thread *tid* is to look again, and to find *view*; False if it has just been told to."""
        if not self.tell(staged.staging.transcript, tid):
            return False
        if len(staged.intents) >= _INTENTS:
            staged.intents.clear()
        staged.intents[tid] = (view, time.monotonic_ns())
        return True

    def tell(self, transcript: bytes, tid: int) -> bool:
        """Thread *tid* is told to look again; False if it just was, and has not come further since."""
        self.touched.add(transcript)
        key, mono = (transcript, tid), time.monotonic_ns()
        if mono - self._told.pop(key, -_INTENT_NS) < _INTENT_NS:
            return False
        if len(self._told) >= _INTENTS:
            self._told.clear()
        self._told[key] = mono
        return True

    def came(self, path: bytes, tid: int) -> None:
        """Thread *tid* has come to *path*. If it had been told to look again, it has done so, also where the file that
        it found has got another name since, be that a transcript's or not."""
        told = {transcript for transcript, each in self._told if each == tid}
        for transcript in told:
            del self._told[transcript, tid]
        self.touched |= told
        for transcript in self.of.keys() & {path, *told}:
            self.touched.add(transcript)
            self.of[transcript].intents.pop(tid, None)

    def awaited(self, live: Live) -> bool:
        """Whether a thread that was told to look again is to find *live*."""
        mono = time.monotonic_ns()
        return any(view is live and mono - when < _INTENT_NS for view, when in live.staged.intents.values())

    def node(self, live: Live) -> Node:
        """The node of a branch, with one more reference for the reply that is about to be sent."""
        node = live.node
        core = self._core
        if node is None or core.nodes.get(node.id) is not node:
            shown = live.branch.shown
            staged = live.staged
            node = core.nodes.alias(staged.parent, staged.name, shown.dev, shown.ino, Kind.TRANSCRIPT)
            node.view = live
            live.node = node
        core.nodes.refer(node)
        return node

    def owners(self, staged: Staged) -> Node:
        """The node of a file that has lost its name, for its owner; with one more reference."""
        core, node = self._core, staged.node
        if node is None or core.nodes.get(node.id) is not node:
            assert staged.ghost is not None
            ghost = staged.ghost[1]
            node = core.nodes.alias(staged.parent, staged.name, ghost.device, ghost.inode, Kind.TRANSCRIPT)
            core.fds.give(node, os.dup(staged.ghost_fd))
            node.file = core.nodes.shared.get((ghost.device, ghost.inode), node.file)
            core.left(node, os.fstat(staged.ghost_fd))
            node.view = staged
            staged.node = node
        core.nodes.refer(node)
        return node

    def outside(self, staged: Staged, st: os.stat_result) -> Node:
        """The node of the committed view, where the owner's has other attributes; with one more reference."""
        core, node = self._core, staged.outside
        if (
            node is None
            or core.nodes.get(node.id) is not node
            or (node.dev, node.ino) != (st.st_dev, st.st_ino)
        ):
            node = core.nodes.alias(staged.parent, staged.name, st.st_dev, st.st_ino, Kind.TRANSCRIPT)
            if staged.node is not None:
                node.file = staged.node.file
            staged.outside = node
        core.nodes.refer(node)
        return node

    def went_wrong(self, transcript: bytes) -> None:
        """An error of the guard's own, while it enforced something: after some of them it only records."""
        count = self._errors[transcript] = self._errors.get(transcript, 0) + 1
        if count < MAX_ERRORS or transcript in self.given_up:
            return
        self.given_up.add(transcript)
        log.error(
            "%s: %d internal errors; from now on it is only recorded, until the next mount",
            text(transcript),
            count,
        )
        facts = {"change": "given up", "errors": count}
        self._core.audit.emit(Notice("branch", self._core.clock(), facts, transcript))

    def could_not(self, transcript: bytes, what: str, error: OSError) -> None:
        """A change could not be staged: it goes through as it would without the guard."""
        self.passed += 1
        log.warning("%s: %s could not be staged (%s): it goes through", text(transcript), what, error)
        self._core.audit.emit(
            Notice(
                "unstaged",
                self._core.clock(),
                {"operation": what, "error": error.strerror or str(error)},
                transcript,
            )
        )

    def _tell(self, staged: Staged, branch: Branch, change: str, **more: Any) -> None:
        facts = {"change": change, "branch": branch.number, "lane": branch.lane}
        facts.update((key, value) for key, value in more.items() if value is not None)
        self._core.audit.emit(Notice("branch", self._core.clock(), facts, staged.staging.transcript))
