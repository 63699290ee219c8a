"""What the mount holds of a transcript with more than one view: the branches, with their descriptors and nodes. Plain
data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.staging import Branch, Staging, View
from guardfs.mount.nodes import Node
from guardfs.policy.facts import Decision
from guardfs.state.branches import BranchFile, GhostFacts

if TYPE_CHECKING:
    from guardfs.mount.operations.parts import Handle


class Live:
    """A branch on the mount. base_fd: the file that it stands on, -1 if none. node: what the kernel knows it by, None
    if it does not. handles: open ones that read and write it. decision: the last one that sent a change there. busy:
    when it was written or cut last, monotonic ns."""

    __slots__ = ("base_fd", "branch", "busy", "decision", "file", "handles", "node", "staged")

    def __init__(self, staged: Staged, branch: Branch, file: BranchFile, base_fd: int) -> None:
        self.staged = staged
        self.branch = branch
        self.file = file
        self.base_fd = base_fd
        self.node: Node | None = None
        self.handles: list[Handle] = []
        self.decision: Decision | None = None
        self.busy = 0

    def shown(self, real: Fingerprint) -> Fingerprint:
        """What its lane sees, whatever the file is like."""
        return self.branch.shown

    def read(self, size: int, offset: int) -> bytes:
        """pread(2) of the whole view."""
        base, parts = self.branch.base, b""
        while offset + len(parts) < base and len(parts) < size:
            at = offset + len(parts)
            part = os.pread(self.base_fd, min(size - len(parts), base - at), at)
            if not part:  # shorter than it was: somebody cut it below the mount
                part = bytes(min(size - len(parts), base - at))
            parts += part
        if len(parts) < size:
            parts += self.file.read(size - len(parts), offset + len(parts) - base)
        return parts


class Fixed(NamedTuple):
    """A view that shows one state."""

    state: Fingerprint

    def shown(self, real: Fingerprint) -> Fingerprint:
        """It."""
        return self.state


class Staged:
    """A transcript with more than one view. parent, name: where it is. node: that of the owner's view; None if the
    kernel knows none. outside: that of the committed view, where it must be another one. intents: what the next look of
    a thread is to find, by thread id, and since when. ghost: its number and facts, while the owner's file has not got
    its name; ghost_fd: that file, O_PATH. resting: the same of one that no owner relies on any more, while what waits
    behind it goes there. forgiven: the thread that was just shown the state before its own write, and
    that state. closed: when the last fence was closed by its owner, monotonic ns. holding: what the owner goes on
    seeing while another lane's change of attributes is under way.
    """

    __slots__ = (
        "closed",
        "forgiven",
        "ghost",
        "ghost_fd",
        "holding",
        "intents",
        "lives",
        "name",
        "node",
        "outside",
        "parent",
        "resting",
        "staging",
    )

    def __init__(self, transcript: bytes, parent: Node, name: bytes, node: Node | None) -> None:
        self.staging = Staging(transcript)
        self.parent = parent
        self.name = name
        self.node = node
        self.outside: Node | None = None
        self.lives: dict[int, Live] = {}
        self.intents: dict[int, tuple[Live | View, int]] = {}
        self.ghost: tuple[int, GhostFacts] | None = None
        self.ghost_fd = -1
        self.resting: tuple[int, GhostFacts] | None = None
        self.forgiven: tuple[int, Fingerprint] | None = None
        self.closed = 0
        self.holding: Fingerprint | None = None

    def shown(self, real: Fingerprint) -> Fingerprint:
        """What the owner sees."""
        return self.staging.held(real)

    def lost(self, node: Node | None) -> bool:
        """Whether *node* leads to the owner's file, which has not got its name any more, and is no branch. The kernel
        may know that file by the committed view's node, too, from when it had the name."""
        if self.ghost is None or node is None or isinstance(node.view, Live):
            return False
        facts = self.ghost[1]
        return node is self.node or (node.dev, node.ino) == (facts.device, facts.inode)

    def strange(self, relies: Fingerprint) -> bool:
        """Whether the owner's file, which has lost its name, is another one than *relies* tells of: it was a dead
        one's."""
        if self.ghost is None:
            return False
        facts = self.ghost[1]
        return (relies.dev, relies.ino) != (facts.device, facts.inode)


def fingerprint(st: os.stat_result) -> Fingerprint:
    """What an agent would remember of *st*."""
    return Fingerprint(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
