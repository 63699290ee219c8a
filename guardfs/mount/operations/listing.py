"""Operations on directories as lists: opendir, readdir, releasedir, fsyncdir, forget."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any

import pyfuse3

from guardfs.closing import let_go
from guardfs.mount.layout import Entry, cache_listing
from guardfs.mount.nodes import Node
from guardfs.mount.operations.attributes import Attributes
from guardfs.mount.operations.core import now
from guardfs.mount.operations.parts import Context, Later

_LARGE = 64 * 1024
"""Directories of this size (bytes, as stat reports them) and more are listed in a thread: some thousand
names take milliseconds.
"""

_Row = tuple[bytes, int, int]  # name, inode, file type bits of a mode


class Listing:
    """An open directory: the node, and its names as they were when the list was begun (POSIX promises no more).

    opener: the thread that opened it. kept: the kernel may keep the list for later readers. reading: begun, and not
    at its end yet. kept_at: where the next daemon finds it, 0 if nowhere.
    """

    __slots__ = ("kept", "kept_at", "node", "opener", "reading", "rows")

    def __init__(self, node: Node, opener: int) -> None:
        self.node = node
        self.opener = opener
        self.kept = False
        self.reading = False
        self.rows: list[_Row] | None = None
        self.kept_at = 0


class Listings(Attributes):
    """opendir, readdir, releasedir, fsyncdir, forget."""

    _row = Entry()  # of names in a list: no node id, so the kernel looks up those that somebody wants

    def opendir(self, node_id: int, ctx: Context) -> int:
        """Begin a list; the kernel may keep it until the directory changes."""
        node = self.node(node_id)
        number = self.next_handle
        self.next_handle += 1
        listing = self.listings[number] = Listing(node, ctx.pid)
        if self.keeper is not None:
            listing.kept_at = self.keeper.listed(number, node.id)
        if node.watched and self._may_be_kept(listing):
            listing.kept = True
            self._kept.setdefault(node.id, []).append(listing)
            cache_listing(self.request)
        if self.audit.wants("list", node.kind):
            self.note("list", now(), ctx, node.kind, node.path(), 0, node)
        return number

    def _may_be_kept(self, listing: Listing) -> bool:
        """One reader at a time: the kernel joins what several are sent into one list, and may take an old part for a
        new one. A thread that has the directory open already and does not read there cannot be in its own way."""
        others = self._kept.get(listing.node.id, ())
        return all(other.opener == listing.opener and not other.reading for other in others)

    def _begin_reading(self, listing: Listing) -> None:
        listing.reading = True
        if listing.kept and any(
            other.reading and other is not listing for other in self._kept[listing.node.id]
        ):
            self.forget_node(
                listing.node.id
            )  # a descriptor was handed on, and two are read at once after all

    def readdir(self, number: int, offset: int, token: Any) -> Later | None:
        """Send names from *offset* on, as many as the kernel has room for."""
        listing: Listing = self.listings[number]
        if listing.rows is not None and offset > 0:
            listing.reading = offset < len(listing.rows)
            self._send(listing.rows, offset, token)
            return None
        self._begin_reading(listing)
        node = listing.node
        # never a stat of "..": from a directory right below the root it would lead into the mount, to ourselves
        above = node.names[-1][0].ino if node.names else node.ino
        fd = self.open_below(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fds.of(node))
        try:
            large = self.below.fstat(fd).st_size >= _LARGE
        except BaseException:
            let_go(fd)
            raise
        if large:

            def then(rows: list[_Row]) -> None:
                listing.rows = rows
                self._send(rows, offset, token)

            return Later(lambda: self._rows(fd, above), then)
        listing.rows = self._rows(fd, above)
        self._send(listing.rows, offset, token)
        return None

    def _rows(self, fd: int, above: int) -> list[_Row]:
        """All names of the directory *fd*, which is closed; *above* is the inode number of its parent."""
        try:
            here = self.below.fstat(fd)
            rows: list[_Row] = [(b".", here.st_ino, stat.S_IFDIR), (b"..", above, stat.S_IFDIR)]
            scan: Any = self.below.scandir  # typeshed: no scandir of a descriptor
            with scan(fd) as entries:
                for entry in entries:
                    rows.append((os.fsencode(entry.name), entry.inode(), _type(entry)))
            return rows
        finally:
            let_go(fd)

    def _send(self, rows: Sequence[_Row], offset: int, token: Any) -> None:
        row = self._row
        attributes, reply = row.attributes, pyfuse3.readdir_reply
        for position in range(offset, len(rows)):
            name, inode, kind = rows[position]
            attributes.st_mode = kind
            row.unknown(inode)
            if not reply(token, name, attributes, position + 1):
                break

    def releasedir(self, number: int) -> None:
        """The list is closed."""
        listing = self.listings.pop(number, None)
        if listing is not None and listing.kept_at and self.keeper is not None:
            self.keeper.store.free(listing.kept_at)
        if listing is not None and listing.kept:
            others = self._kept[listing.node.id]
            others.remove(listing)
            if not others:
                del self._kept[listing.node.id]

    def fsyncdir(self, number: int, datasync: bool) -> Later:
        """Bring a directory to the disk, in a thread."""
        listing = self.listings.get(number)
        if listing is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fd = self.open_below(
            b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fds.of(listing.node)
        )

        def work() -> None:
            try:
                self.below.fsync(fd)
            finally:
                let_go(fd)

        return Later(work, lambda _: None)

    def forget(self, forgotten: list[tuple[int, int]]) -> None:
        """The kernel gives back references: (node id, count)."""
        for node_id, count in forgotten:
            node = self.nodes.forget(node_id, count)
            if node is not None:
                self.fds.drop(node)
                if node.is_dir and self.watcher is not None:
                    self.watcher.remove(node)


def _type(entry: os.DirEntry[Any]) -> int:
    """The type bits that readdir tells, without a stat for the usual types."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    try:
        return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return 0
