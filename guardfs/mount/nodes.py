"""The node table: which file below a node id means, and under which names the kernel knows it.

A node id is a number that the kernel uses for a file from the first LOOKUP until it forgets it. Ids start at
1 (the root), grow, and are never used twice in the life of a mount, so that a request can never reach
another file than the one meant; that also lets a new daemon take the table over. A file below is known by
(device, inode): hard links share a node.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from guardfs.audit.event import Kind
from guardfs.fence.fingerprint import Fingerprint

if TYPE_CHECKING:
    from guardfs.mount.memory.nodes import NodeLedger

ROOT_ID = 1

Seen = tuple[int, int, int, int]
"""What was last seen of a file: size in bytes, mtime and ctime in ns, mode. A difference that the guard did
not make is an unseen writer's.
"""

_FORGOTTEN = 1024


class File:
    """What is known of one file below, whatever the nodes that lead to it."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: Seen | None = None


class View(Protocol):
    """A view of a transcript that is not simply the file."""

    def shown(self, real: Fingerprint) -> Fingerprint:
        """What is shown of the file in the state *real*."""


class Node:
    """One file that the kernel knows.

    names: (parent node, name) pairs under which it was looked up; empty once unlinked. nlookup: the kernel's
    references. fd: an O_PATH descriptor, or -1. pinned: the descriptor must stay, for no name leads to the
    file any more. opened: open handles that hold a real descriptor.
    setid: the mode has a set-id bit. watched: a directory in which changes are announced. file: what is known of the
    file itself, shared by the nodes that are views of it. view: which view of a transcript it is, None where there is
    but one. kept: where the next daemon finds it, 0 if nowhere. made: created through the mount, as far as this daemon
    knows: whoever writes it does so there, too.
    """

    __slots__ = (
        "dev",
        "fd",
        "file",
        "id",
        "ino",
        "is_dir",
        "kept",
        "kind",
        "made",
        "names",
        "nlookup",
        "opened",
        "pinned",
        "setid",
        "turns",
        "view",
        "watched",
    )

    def __init__(self, node_id: int, dev: int, ino: int, kind: Kind, *, is_dir: bool) -> None:
        self.id = node_id
        self.dev = dev
        self.ino = ino
        self.kind = kind
        self.is_dir = is_dir
        self.names: list[tuple[Node, bytes]] = []
        self.nlookup = 0
        self.fd = -1
        self.pinned = False
        self.opened: list[int] = []
        self.file = File()
        self.view: View | None = None
        self.setid = False
        self.watched = False
        self.kept = 0
        self.made = False
        self.turns = 0

    @property
    def seen(self) -> Seen | None:
        """What was last seen of the file."""
        return self.file.seen

    @seen.setter
    def seen(self, seen: Seen | None) -> None:
        self.file.seen = seen

    def path(self) -> bytes:
        """The path below the mount, by the latest name; "." for the root, the last name with a marker if
        unlinked.
        """
        if self.id == ROOT_ID:
            return b"."
        parts: list[bytes] = []
        node = self
        while node.id != ROOT_ID:
            if not node.names or len(parts) > 256:
                parts.append(b"(unlinked)")
                break
            node, name = node.names[-1]
            parts.append(name)
        parts.reverse()
        return b"/".join(parts)


def seen_of(st: os.stat_result) -> Seen:
    """The part of a stat result that tells one state of a file from another."""
    return (st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode)


class NodeTable:
    """All nodes, by id, by (device, inode), and by (parent id, name)."""

    def __init__(self, root: os.stat_result) -> None:
        self.root = Node(ROOT_ID, root.st_dev, root.st_ino, Kind.OTHER, is_dir=True)
        self.root.nlookup = 1
        self._next = ROOT_ID + 1
        self._by_id: dict[int, Node] = {ROOT_ID: self.root}
        self._by_inode: dict[tuple[int, int], Node] = {(root.st_dev, root.st_ino): self.root}
        self._entries: dict[tuple[int, bytes], Node] = {}
        self._forgotten: OrderedDict[tuple[int, int], Seen | None] = OrderedDict()
        self.shared: dict[tuple[int, int], File] = {}
        """Files to which a node leads that is no name's: what is known of them, for a node that is made for one."""
        self.ledger: NodeLedger | None = None
        """Where every change is written down for the next daemon."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, node_id: int) -> Node:
        return self._by_id[node_id]

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._by_id.values()))

    def get(self, node_id: int) -> Node | None:
        """The node *node_id*, or None if the kernel has forgotten it."""
        return self._by_id.get(node_id)

    def entry(self, parent: Node, name: bytes) -> Node | None:
        """The node last known as *name* in *parent*."""
        return self._entries.get((parent.id, name))

    def entries(self) -> list[tuple[int, bytes]]:
        """All (parent id, name) that are known."""
        return list(self._entries)

    def of_file(self, st: os.stat_result) -> Node | None:
        """The node of the file with this stat result, if the kernel knows it."""
        return self._by_inode.get((st.st_dev, st.st_ino))

    def remember(self, parent: Node, name: bytes, st: os.stat_result, kind: Kind) -> Node:
        """The node for *name* in *parent*, made if need be, with one more reference for the reply that is
        about to be sent.
        """
        key = (st.st_dev, st.st_ino)
        is_dir = st.st_mode & 0o170000 == 0o040000
        node = self._by_inode.get(key)
        if node is None or node.is_dir != is_dir:
            node = self._new(st.st_dev, st.st_ino, kind, is_dir=is_dir)
            if self.shared:
                node.file = self.shared.get(key, node.file)
            self._by_id[node.id] = node
            self._by_inode[key] = node
            self._forgotten.pop(key, None)
        node.nlookup += 1
        node.setid = st.st_mode & 0o6000 != 0
        if not self.name(node, parent, name, kind) and self.ledger is not None:
            self.ledger.count(node)
        return node

    def _new(self, dev: int, ino: int, kind: Kind, *, is_dir: bool) -> Node:
        node = Node(self._next, dev, ino, kind, is_dir=is_dir)
        self._next += 1
        if self.ledger is not None:
            self.ledger.next_node(self._next)
        return node

    def refer(self, node: Node, count: int = 1) -> None:
        """The kernel is about to be given *count* more references to *node*."""
        node.nlookup += count
        if self.ledger is not None:
            self.ledger.count(node)

    def changed(self, node: Node) -> None:
        """Names, file or kind of *node* were changed by hand."""
        if self.ledger is not None and node.id != ROOT_ID and self._by_id.get(node.id) is node:
            self.ledger.changed[node.id] = node, self._by_inode.get((node.dev, node.ino)) is node

    def alias(self, parent: Node, name: bytes, dev: int, ino: int, kind: Kind) -> Node:
        """A further node for what *name* in *parent* means to some: a view. No name leads to it but by who asks."""
        node = self._new(dev, ino, kind, is_dir=False)
        self._by_id[node.id] = node
        node.names.append((parent, name))
        self.changed(node)
        return node

    def name(self, node: Node, parent: Node, name: bytes, kind: Kind) -> bool:
        """*name* in *parent* now means *node*; False if it did before."""
        key = (parent.id, name)
        before = self._entries.get(key)
        if before is node:
            return False
        if before is not None:
            self.unname(parent, name)
        self._entries[key] = node
        if kind is Kind.OTHER and node.kind is not kind and node.names:
            node.names.insert(
                -1, (parent, name)
            )  # events go on calling it by the name that makes it a transcript
        else:
            node.names.append((parent, name))
        if node.kind is not kind and (node.kind is Kind.OTHER or len(node.names) == 1):
            node.kind = kind  # a transcript stays one under whatever further names it gets
        self.changed(node)
        return True

    def unname(self, parent: Node, name: bytes) -> Node | None:
        """*name* in *parent* means nothing any more; the node that it meant, if one was known."""
        node = self._entries.pop((parent.id, name), None)
        if node is not None:
            node.names = [pair for pair in node.names if pair != (parent, name)]
            self.changed(node)
        return node

    def detach(self, node: Node) -> None:
        """The file below is gone (its last link, or replaced below the mount): its inode number may soon
        mean another file.
        """
        key = (node.dev, node.ino)
        if self._by_inode.get(key) is node:
            del self._by_inode[key]
            self.changed(node)

    def forget(self, node_id: int, count: int) -> Node | None:
        """Drop *count* references; the node, if those were the last."""
        node = self._by_id.get(node_id)
        if node is None or node_id == ROOT_ID:
            return None
        node.nlookup -= count
        if node.nlookup > 0:
            if self.ledger is not None:
                self.ledger.count(node)
            return None
        if self.ledger is not None:
            self.ledger.drop(node)
        del self._by_id[node_id]
        for parent, name in node.names:
            key = (parent.id, name)
            if self._entries.get(key) is node:
                del self._entries[key]
        if self._by_inode.get((node.dev, node.ino)) is node:
            del self._by_inode[node.dev, node.ino]
            self._forgotten[node.dev, node.ino] = node.seen
            if len(self._forgotten) > _FORGOTTEN:
                self._forgotten.popitem(last=False)
        return node

    def take_over(self, node: Node, next_id: int, *, of_inode: bool) -> None:
        """*node*, without names, is one of those that an earlier daemon has told the kernel of. next_id: the first id
        that was never given out."""
        self._by_id[node.id] = node
        if of_inode:
            self._by_inode[node.dev, node.ino] = node
        self._next = max(self._next, next_id, node.id + 1)

    def known_as(self, node: Node, parent: Node, name: bytes, *, entry: bool) -> None:
        """The kernel knows *node*, which was taken over, as *name* in *parent*. entry: it is what a look without a view
        of its own finds there."""
        node.names.append((parent, name))
        if entry:
            self._entries[parent.id, name] = node

    def last_seen(self, st: os.stat_result) -> Seen | None:
        """What was last seen of a file that the kernel has forgotten lately."""
        return self._forgotten.get((st.st_dev, st.st_ino))
