"""O_PATH descriptors of nodes: an LRU below the descriptor limit.

A node needs one to be worked upon where no `*at` call takes a name, and as the directory of such calls.
Evicted descriptors are opened again by parent and name, and the inode is checked: should the name mean
another file by now, the answer is ESTALE, which makes the kernel look the name up again.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict

from guardfs.closing import let_go
from guardfs.mount.nodes import Node

_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Descriptors:
    """Holds at most *limit* evictable descriptors; pinned ones (unlinked files that the kernel still uses)
    come on top.
    """

    def __init__(self, root: Node, root_fd: int, limit: int) -> None:
        self._limit = max(16, limit)
        self._lru: OrderedDict[int, Node] = OrderedDict()
        self._root = root
        root.fd = root_fd
        root.pinned = True
        self.pinned = 0

    def __len__(self) -> int:
        return len(self._lru) + self.pinned

    def of(self, node: Node) -> int:
        """An O_PATH descriptor of *node*; valid until the next call of a method here."""
        if node.fd >= 0:
            if not node.pinned:
                self._lru.move_to_end(node.id)
            return node.fd
        fd = self._open(node)
        node.fd = fd
        self._lru[node.id] = node
        if len(self._lru) > self._limit:
            _, oldest = self._lru.popitem(last=False)
            let_go(oldest.fd)
            oldest.fd = -1
        return fd

    def path(self, node: Node) -> bytes:
        """A path that leads to *node* itself, also if it is a symlink, for calls that take no descriptor of
        this kind.
        """
        return b"/proc/self/fd/%d" % self.of(node)

    def _open(self, node: Node) -> int:
        for parent, name in reversed(node.names):
            try:
                directory = self.of(parent)
                try:
                    fd = os.open(name, _FLAGS, dir_fd=directory)
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.shrink(directory):
                        raise
                    fd = os.open(name, _FLAGS, dir_fd=directory)
            except FileNotFoundError:
                continue
            try:
                st = os.fstat(fd)
            except BaseException:
                let_go(fd)
                raise
            if (st.st_dev, st.st_ino) == (node.dev, node.ino):
                return fd
            let_go(fd)
        for open_fd in node.opened:
            return os.open(b"/proc/self/fd/%d" % open_fd, os.O_PATH | os.O_CLOEXEC)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def shrink(self, besides: int | None = None) -> bool:
        """Close the older half of the evictable descriptors, but not *besides*; whether any was closed."""
        closed = False
        for node in list(self._lru.values())[: len(self._lru) // 2 + 1]:
            if node.fd != besides:
                self.drop(node)
                closed = True
        return closed

    def pin(self, node: Node) -> None:
        """Keep a descriptor until `drop`: the last name of *node* is about to go, and the kernel may still
        ask about it.
        """
        if node.pinned:
            return
        self.of(node)
        del self._lru[node.id]
        node.pinned = True
        self.pinned += 1

    def give(self, node: Node, fd: int) -> None:
        """*fd* is the pinned descriptor of *node* from now on, which has none: no name leads to its file."""
        node.fd = fd
        node.pinned = True
        self.pinned += 1

    def drop(self, node: Node) -> None:
        """The kernel has forgotten *node*: close its descriptor."""
        if node is self._root or node.fd < 0:
            return
        if node.pinned:
            self.pinned -= 1
            node.pinned = False
        else:
            del self._lru[node.id]
        let_go(node.fd)
        node.fd = -1

    def close(self) -> None:
        """Close all, the root's included."""
        for node in list(self._lru.values()):
            self.drop(node)
        if self._root.fd >= 0:
            let_go(self._root.fd)
            self._root.fd = -1
