"""Nodes and open files as the next daemon will need them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from guardfs.audit.event import Kind as NameKind
from guardfs.mount.memory.store import Kind, Record, Store, Word

if TYPE_CHECKING:
    from guardfs.mount.nodes import Node
    from guardfs.mount.operations.parts import Handle

_NODE = struct.Struct("=QQQQQ")  # id, references, device, inode, bits
_NAME = struct.Struct("=QH")  # parent's id, bytes of the name
_HANDLE = struct.Struct(
    "=QQQQQQQ"
)  # number, node, flags, bits, the request that opened it, follows + 1, own_from

_DIRECTORY, _OF_INODE = 1 << 8, 1 << 9
SETTLED, TORN, KEEP_CACHE, DIRECT_IO = 1, 2, 4, 8
"""Bits of a handle; the last two: what the kernel was told of it."""

_REFERENCES = 3  # word of a node's slot
_BITS, _FOLLOWS, _OWN_FROM = 5, 7, 8  # words of a handle's slot


class NodeFacts(NamedTuple):
    """A node that an earlier daemon knew. of_inode: the node that a new name of its file would get."""

    address: int
    order: int
    id: int
    references: int
    dev: int
    ino: int
    kind: NameKind
    is_dir: bool
    of_inode: bool
    names: list[tuple[int, bytes]]


class HandleFacts(NamedTuple):
    """An open file that an earlier daemon had. bits: `SETTLED` and so on. unique: the request that opened it. follows,
    own_from: see `guardfs.mount.operations.parts.Handle`."""

    address: int
    order: int
    number: int
    node: int
    flags: int
    bits: int
    unique: int
    follows: int
    own_from: int


class NodeLedger:
    """Writes down what changes in the node table and among the handles, before the kernel is answered. changed: nodes
    that are new, or have other names or another file, by id, since `keep` was called."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.changed: dict[int, tuple[Node, bool]] = {}
        self._words = store.words

    def next_node(self, number: int) -> None:
        """No node id below *number* is given out again."""
        self._words[Word.NODE] = number

    def next_handle(self, number: int) -> None:
        """The same for handles."""
        self._words[Word.HANDLE] = number

    def keep(self) -> None:
        """Write down all that has changed."""
        while self.changed:
            _, (node, of_inode) = self.changed.popitem()
            bits = node.kind | (_DIRECTORY if node.is_dir else 0) | (_OF_INODE if of_inode else 0)
            data = _NODE.pack(node.id, max(0, node.nlookup), node.dev, node.ino, bits)
            for parent, name in node.names:
                data += _NAME.pack(parent.id, len(name)) + name
            node.kept = self.store.replace(node.kept, Kind.NODE, data)

    def count(self, node: Node) -> None:
        """The kernel has been given, or has given back, a reference."""
        if node.kept:
            self._words[(node.kept >> 3) + _REFERENCES] = max(0, node.nlookup)

    def drop(self, node: Node) -> None:
        """The kernel has forgotten *node*."""
        self.changed.pop(node.id, None)
        if node.kept:
            self.store.free(node.kept)
            node.kept = 0

    def opened(self, number: int, handle: Handle, bits: int, unique: int) -> None:
        """A file was opened; the kernel is about to be told."""
        flags = handle.flags & 0xFFFFFFFF
        data = _HANDLE.pack(number, handle.node.id, flags, bits, unique, handle.follows + 1, handle.own_from)
        handle.kept = self.store.put(Kind.HANDLE, data)

    def told(self, handle: Handle, *, direct_io: bool) -> None:
        """The kernel is told something else of *handle* than `opened` was."""
        if handle.kept and direct_io:
            self._words[(handle.kept >> 3) + _BITS] |= DIRECT_IO

    def marked(self, handle: Handle) -> None:
        """What is written through *handle* goes where its open went, or its last write did, or behind what was on a
        branch."""
        if handle.kept:
            words, slot = self._words, handle.kept >> 3
            words[slot + _OWN_FROM] = handle.own_from
            words[slot + _FOLLOWS] = handle.follows + 1
            at = slot + _BITS
            told = words[at] & (KEEP_CACHE | DIRECT_IO)
            words[at] = told | (SETTLED if handle.settled else 0) | (TORN if handle.torn else 0)

    def closed(self, handle: Handle) -> None:
        """The kernel uses it no more."""
        if handle.kept:
            self.store.free(handle.kept)
            handle.kept = 0


def node_of(record: Record) -> NodeFacts:
    """What `NodeLedger.keep` wrote."""
    data = record.data
    number, references, dev, ino, bits = _NODE.unpack_from(data)
    names: list[tuple[int, bytes]] = []
    at = _NODE.size
    while at < len(data):
        parent, size = _NAME.unpack_from(data, at)
        at += _NAME.size
        names.append((parent, data[at : at + size]))
        at += size
    return NodeFacts(
        record.address,
        record.order,
        number,
        references,
        dev,
        ino,
        NameKind(bits & 0xFF),
        bits & _DIRECTORY != 0,
        bits & _OF_INODE != 0,
        names,
    )


def handle_of(record: Record) -> HandleFacts:
    """What `NodeLedger.opened` wrote."""
    facts = HandleFacts(record.address, record.order, *_HANDLE.unpack(record.data))
    return facts._replace(follows=facts.follows - 1)
