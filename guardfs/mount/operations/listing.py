"""Operations on directories as lists: readdir, fsyncdir, forget."""

from __future__ import annotations

import os
import stat
from typing import Any

import pyfuse3

from guardfs.closing import let_go
from guardfs.mount.layout import Entry
from guardfs.mount.lists import Listing, Row, place_in
from guardfs.mount.operations.attributes import Attributes
from guardfs.mount.operations.core import now
from guardfs.mount.operations.parts import Later

_LARGE = 64 * 1024
"""Directories of this size (bytes, as stat reports them) and more are listed in a thread: some thousand
names take milliseconds.
"""


class Listings(Attributes):
    """readdir, fsyncdir, forget. Directories are not opened: the kernel was told once that this is not needed, and
    keeps the list of each until its names change (FUSE_NO_OPENDIR_SUPPORT in <linux/fuse.h>)."""

    _row = Entry()  # of names in a list: no node id, so the kernel looks up those that somebody wants

    def readdir(self, node_id: int, offset: int, token: Any) -> Later | None:
        """Send names from *offset* on, as many as the kernel has room for."""
        node = self.node(node_id)
        if not offset and self.audit.wants("list", node.kind):
            self.note("list", now(), self.caller(), node.kind, node.path(), 0, node)
        listing = self.lists.at(offset) if offset else None
        if listing is not None and listing.node is node:
            return self._send(listing, offset, token)
        new = self.lists.new(node, -1 if offset else node.turns)
        # never a stat of "..": from a directory right below the root it would lead into the mount, to ourselves
        above = node.names[-1][0].ino if node.names else node.ino
        fd = self.open_below(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fds.of(node))
        try:
            large = self.below.fstat(fd).st_size >= _LARGE
        except BaseException:
            let_go(fd)
            raise
        if large:

            def then(rows: list[Row]) -> Later | None:
                self.lists.taken(new, rows)
                return self._send(new, offset, token)

            return Later(lambda: self._rows(fd, above), then)
        self.lists.taken(new, self._rows(fd, above))
        return self._send(new, offset, token)

    def _send(self, listing: Listing, offset: int, token: Any) -> Later | None:
        """Whoever is sent nothing is at the end. The kernel keeps the list then, if it was the first to be sent of it.

        It may take it for newer than it is: by the change that it knew of when the last reader began. So if names have
        changed since the list was taken, or nobody would tell that they do, or each reader is to be seen, the kernel is
        made to forget the list before it knows that it has all of it.
        """
        rows, row = listing.rows, self._row
        attributes, reply = row.attributes, pyfuse3.readdir_reply
        begin, above = place_in(offset), listing.offset(1)
        for position in range(begin, len(rows)):
            name, inode, kind = rows[position]
            attributes.st_mode = kind
            row.unknown(inode)
            if not reply(token, name, attributes, above + position):
                break
        if begin < len(rows):
            return None
        self.lists.ended(listing)
        node = listing.node
        if listing.turns == node.turns and node.watched and not self.audit.wants("list", node.kind):
            return None
        return Later(lambda: self.forget_now(node.id), lambda _: None)

    def _rows(self, fd: int, above: int) -> list[Row]:
        """All names of the directory *fd*, which is closed; *above* is the inode number of its parent."""
        try:
            here = self.below.fstat(fd)
            rows: list[Row] = [(b".", here.st_ino, stat.S_IFDIR), (b"..", above, stat.S_IFDIR)]
            scan: Any = self.below.scandir  # typeshed: no scandir of a descriptor
            with scan(fd) as entries:
                for entry in entries:
                    rows.append((os.fsencode(entry.name), entry.inode(), _type(entry)))
            return rows
        finally:
            let_go(fd)

    def fsyncdir(self, node_id: int, datasync: bool) -> Later:
        """Bring a directory to the disk, in a thread."""
        fd = self.open_below(
            b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fds.of(self.node(node_id))
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
