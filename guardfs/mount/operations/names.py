"""Operations on names: lookup, create and remove, rename, link."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.closing import let_go
from guardfs.fence.fingerprint import Fingerprint
from guardfs.mount.caching import timeouts
from guardfs.mount.nodes import Node
from guardfs.mount.operations.core import Core, now
from guardfs.mount.operations.parts import Context, Handle
from guardfs.policy.facts import operation_class

_OPEN_STRIPPED = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY | os.O_DIRECT | os.O_NOFOLLOW | os.O_SYNC


def open_flags(flags: int) -> int:
    """The flags for the file below.

    What names and creates is the guard's business; O_DIRECT would want aligned buffers; O_SYNC (which includes
    O_DSYNC) would block the loop: see `Files.write`. O_NONBLOCK: should a fifo have taken the name, it must not either.
    """
    return (flags & ~_OPEN_STRIPPED) | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Names(Core):
    """lookup, mknod, mkdir, symlink, link, create, unlink, rmdir, rename."""

    def lookup(self, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Answer a look at a name; for transcripts and locks the kernel asks each time."""
        begin = now()
        parent = self.node(parent_id)
        kind = self.kind(name)
        try:
            st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
        except FileNotFoundError:
            self._notice(parent, name, kind)
            self.note("look", begin, ctx, kind, self.child_path(parent, name), errno.ENOENT)
            return self.reply.nothing(timeouts(kind, watched=parent.watched).absent)
        node = self._known(parent, name, st, kind)
        self.note("look", begin, ctx, kind, self.child_path(parent, name), 0, node, size=st.st_size)
        times = self.times(node, st)
        return self.reply.fill(node.id, st, times.entry, times.attributes)

    def _known(self, parent: Node, name: bytes, st: os.stat_result, kind: Kind) -> Node:
        """The node behind *name*, now that a stat has shown which file it is."""
        before = self.nodes.entry(parent, name)
        if before is not None and (before.dev, before.ino) != (st.st_dev, st.st_ino):
            self._notice(parent, name, kind, "replaced")
        node = self.nodes.remember(parent, name, st, kind)
        if node.is_dir and not node.watched:
            self.watch(node)
        self.saw(node, st)
        return node

    def _notice(self, parent: Node, name: bytes, kind: Kind, change: str = "removed") -> None:
        """A handler has found out before the watch reports it: tell, and let the kernel forget its list of names."""
        if self.nodes.entry(parent, name) is None:
            return
        self.vanished(parent, name, kind, change)
        self.expect(parent, name, gone=True)
        if change == "replaced":
            self.expect(parent, name)
        self.forget_node(parent.id)

    def vanished(self, parent: Node, name: bytes, kind: Kind, change: str = "removed") -> None:
        """*name* was known and is not there any more, and it was not the guard that removed it."""
        node = self.nodes.unname(parent, name)
        if node is None:
            return
        if not node.names:
            self.nodes.detach(node)
            if node.opened and self.keeper is not None:
                self.keeper.losing(node)
        self.unseen(self.child_path(parent, name), kind, change, node.seen, None, node)

    def _change(
        self,
        op: str,
        parent: Node,
        name: bytes,
        ctx: Context,
        act: Any,
        touched: Node | None = None,
        **more: Any,
    ) -> Any:
        """Run *act* between the gate and the note; the note tells of a failure too. touched: see `_touched`."""
        begin = now()
        kind = self.kind(name)
        try:
            self.gate()
            result = act()
        except OSError as error:
            self.note(op, begin, ctx, kind, self.child_path(parent, name), error.errno or errno.EIO, **more)
            raise
        node = result if isinstance(result, Node) else None
        self.note(op, begin, ctx, kind, self.child_path(parent, name), 0, node, **more)
        if touched is not None:
            self._touched(touched, begin, ctx, kind, more.get("before"))
        return result

    def _touched(self, node: Node, begin: int, ctx: Context, kind: Kind, before: Fingerprint | None) -> None:
        """Something was done to a name, of *kind*, that *node* has or had. That moves the ctime of a transcript, which
        its agent watches, also where the name is only a further one."""
        if kind is Kind.OTHER and node.kind is Kind.TRANSCRIPT and node.names:
            self.note("attributes", begin, ctx, node.kind, node.path(), 0, node, before=before, logged=False)

    def _adopt(self, parent: Node, name: bytes, ctx: Context, mode: int) -> Node:
        """Give what was just made to its maker, and make a node of it."""
        directory = self.fds.of(parent)
        st = self.below.stat(name, dir_fd=directory, follow_symlinks=False)
        uid, gid = self._owner(st, ctx, directory)
        if (uid, gid) != (st.st_uid, st.st_gid):
            self.below.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
            if mode & 0o6000 and not stat.S_ISDIR(st.st_mode):  # chown has cleared the set-id bits
                self.below.chmod(name, stat.S_IMODE(st.st_mode), dir_fd=directory)
            st = self.below.stat(name, dir_fd=directory, follow_symlinks=False)
        node = self.nodes.remember(parent, name, st, self.kind(name))
        self.expect(parent, name)
        if node.is_dir:
            self.watch(node)
        self.left(node, st)
        return node

    def _owner(self, st: os.stat_result, ctx: Context, directory: int) -> tuple[int, int]:
        """Whose a new file is: the caller's; its group the directory's where that has the set-gid bit."""
        if self.ids[0] != 0:
            return st.st_uid, st.st_gid  # an ordinary user cannot give files away
        if (ctx.uid, ctx.gid) == (st.st_uid, st.st_gid):
            return ctx.uid, ctx.gid
        parent = self.below.fstat(directory)
        return ctx.uid, (st.st_gid if parent.st_mode & stat.S_ISGID else ctx.gid)

    def _answer(self, node: Node) -> pyfuse3.EntryAttributes:
        st = self.stat_node(node)
        times = self.times(node, st)
        return self.reply.fill(node.id, st, times.entry, times.attributes)

    def mknod(
        self, parent_id: int, name: bytes, mode: int, rdev: int, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """Make a fifo, socket, device or regular file."""
        parent = self.node(parent_id)

        def act() -> Node:
            os.umask(ctx.umask)
            self.below.mknod(name, mode, rdev, dir_fd=self.fds.of(parent))
            return self._adopt(parent, name, ctx, mode)

        return self._answer(self._change("mknod", parent, name, ctx, act, detail={"mode": f"{mode:o}"}))

    def mkdir(self, parent_id: int, name: bytes, mode: int, ctx: Context) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        parent = self.node(parent_id)

        def act() -> Node:
            os.umask(ctx.umask)
            self.below.mkdir(name, stat.S_IMODE(mode), dir_fd=self.fds.of(parent))
            return self._adopt(parent, name, ctx, mode)

        return self._answer(
            self._change("mkdir", parent, name, ctx, act, detail={"mode": f"{stat.S_IMODE(mode):o}"})
        )

    def symlink(self, parent_id: int, name: bytes, target: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        parent = self.node(parent_id)

        def act() -> Node:
            self.below.symlink(target, name, dir_fd=self.fds.of(parent))
            return self._adopt(parent, name, ctx, 0)

        return self._answer(self._change("symlink", parent, name, ctx, act, to=target))

    def link(self, node_id: int, parent_id: int, name: bytes, ctx: Context) -> pyfuse3.EntryAttributes:
        """Give a file a further name."""
        parent, node = self.node(parent_id), self.node(node_id)
        path = node.path()

        def act() -> Node:
            directory = self.fds.of(parent)
            self.below.link(self.fds.path(node), name, dst_dir_fd=directory, follow_symlinks=True)
            st = self.below.stat(name, dir_fd=self.fds.of(parent), follow_symlinks=False)
            linked = self.nodes.remember(parent, name, st, self.kind(name))
            self.expect(parent, name)
            self.left(linked, st)
            return linked

        begin = now()
        kind = max(node.kind, self.kind(name))
        before = self.state(node)
        try:
            self.gate()
            linked = act()
        except OSError as error:
            self.note(
                "link", begin, ctx, kind, path, error.errno or errno.EIO, to=self.child_path(parent, name)
            )
            raise
        self.note("link", begin, ctx, kind, path, 0, linked, to=self.child_path(parent, name), before=before)
        return self._answer(linked)

    def create(
        self, parent_id: int, name: bytes, mode: int, flags: int, ctx: Context
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Create and open a file."""
        parent = self.node(parent_id)
        opened: list[tuple[int, os.stat_result]] = []

        def act() -> Node:
            os.umask(ctx.umask)
            directory = self.fds.of(parent)
            wanted = open_flags(flags)
            try:
                create = wanted | os.O_CREAT | os.O_EXCL
                fd = self.open_below(name, create, stat.S_IMODE(mode), dir_fd=directory)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                # made below in the meantime: the kernel looks it up again, and decides who may open it
                self.forget_entry(parent.id, name)
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
            try:
                st = self.below.fstat(fd)
                uid, gid = self._owner(st, ctx, directory)
                if (uid, gid) != (st.st_uid, st.st_gid):
                    self.below.fchown(fd, uid, gid)
                    if mode & 0o6000:
                        self.below.fchmod(fd, stat.S_IMODE(st.st_mode))
                    st = self.below.fstat(fd)
                node = self.nodes.remember(parent, name, st, self.kind(name))
                node.made = True
                self.expect(parent, name)
            except BaseException:
                let_go(fd)
                raise
            self.left(node, st)
            opened.append((fd, st))
            return node

        append, truncates = flags & os.O_APPEND != 0, flags & os.O_TRUNC != 0
        node = self._change("create", parent, name, ctx, act, append=append, truncates=truncates)
        fd, st = opened[0]
        times = self.times(node, st)
        return self.handle(fd, node, flags), self.reply.fill(node.id, st, times.entry, times.attributes)

    def handle(self, fd: int, node: Node, flags: int) -> pyfuse3.FileInfo:
        """Register an open descriptor; what the kernel may keep cached depends on the kind of file.

        What is opened for writing alone passes the page cache by: one write(2) is then one request, where the kernel
        would cut it at a page boundary, and it does not ask for security.capability before it. Nothing is lost: such a
        descriptor can neither be read nor mapped.
        """
        number = self.next_handle
        self.next_handle += 1
        handle = self.handles[number] = Handle(number, fd, node, flags)
        node.opened.append(fd)
        keep_cache, direct_io = node.kind is Kind.OTHER, flags & os.O_ACCMODE == os.O_WRONLY
        if self.keeper is not None:
            self.keeper.handle(handle, keep_cache=keep_cache, direct_io=direct_io)
        return pyfuse3.FileInfo(fh=number, keep_cache=keep_cache, direct_io=direct_io)

    def unlink(self, parent_id: int, name: bytes, ctx: Context) -> None:
        """Remove a name."""
        parent = self.node(parent_id)
        node = self.nodes.entry(parent, name)
        before = self.state(node)

        def act() -> None:
            self._remove(parent, name, self.below.unlink)

        self._change("unlink", parent, name, ctx, act, node, before=before)

    def rmdir(self, parent_id: int, name: bytes, ctx: Context) -> None:
        """Remove an empty directory."""
        parent = self.node(parent_id)
        self._change("rmdir", parent, name, ctx, lambda: self._remove(parent, name, self.below.rmdir))

    def _remove(self, parent: Node, name: bytes, call: Any) -> None:
        node = self.nodes.entry(parent, name)
        if node is not None:
            self._about_to_lose(node)
        try:
            call(name, dir_fd=self.fds.of(parent))
        except FileNotFoundError:
            self._notice(parent, name, self.kind(name))
            raise
        self.expect(parent, name, gone=True)
        self.nodes.unname(parent, name)
        if node is not None:
            self._lost(node)

    def _about_to_lose(self, node: Node) -> None:
        """The guard's last name for *node* may go: keep hold of the file, for the kernel may still ask about
        it.
        """
        if len(node.names) > 1:
            return
        if node.opened:
            if self.keeper is not None:
                self.keeper.losing(node)
            return
        try:
            self.fds.pin(node)
        except OSError:  # gone below already
            pass

    def _lost(self, node: Node) -> None:
        """A name of *node* is gone; if it was the last link, its inode number can soon mean another file."""
        try:
            st = self.stat_node(node)
        except OSError:
            self.nodes.detach(node)
            return
        self.left(node, st)
        if st.st_nlink == 0 or node.is_dir:
            self.nodes.detach(node)

    def rename(
        self, parent_id: int, name: bytes, new_parent_id: int, new_name: bytes, flags: int, ctx: Context
    ) -> None:
        """Rename; with RENAME_NOREPLACE or RENAME_EXCHANGE as the caller asks."""
        if flags & ~(pyfuse3.RENAME_NOREPLACE | pyfuse3.RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        begin = now()
        source, target = self.node(parent_id), self.node(new_parent_id)
        kind = max(self.kind(name), self.kind(new_name))
        path, to = self.child_path(source, name), self.child_path(target, new_name)
        more: dict[str, Any] = {"to": to}
        if flags:
            more["detail"] = {"flags": "exchange" if flags & pyfuse3.RENAME_EXCHANGE else "noreplace"}
        onto = self.kind(new_name) is Kind.TRANSCRIPT
        more["operation"] = operation_class("rename", onto_transcript=onto)
        replaced = self.nodes.entry(target, new_name)
        more["before"] = self.state(self.nodes.entry(source, name))
        more["replaced"] = self.state(replaced)
        try:
            self.gate()
            moved = self._move(source, name, target, new_name, flags)
        except OSError as error:
            self.note("rename", begin, ctx, kind, path, error.errno or errno.EIO, **more)
            raise
        self.note("rename", begin, ctx, kind, path, 0, moved, **more)
        for node, before in ((moved, more["before"]), (replaced, more["replaced"])):
            if node is not None:
                self._touched(node, begin, ctx, kind, before)
        if to == self.judge.registry:
            self.registry_changed()

    def _move(self, source: Node, name: bytes, target: Node, new_name: bytes, flags: int) -> Node | None:
        moved = self.nodes.entry(source, name)
        replaced = self.nodes.entry(target, new_name)
        if self.again and moved is None:  # an earlier daemon came to the end of it
            moved, replaced = replaced, None
        exchange = flags & pyfuse3.RENAME_EXCHANGE
        if replaced is not None and replaced is not moved and not exchange:
            self._about_to_lose(replaced)
        source_fd = self.fds.of(source)
        if target is not source:
            self.fds.of(target)
            source_fd = self.fds.of(source)  # opening one may have evicted the other
        target_fd = self.fds.of(target)
        if flags:
            self.below.rename_with_flags(source_fd, name, target_fd, new_name, flags)
        else:
            self.below.rename(name, new_name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        if replaced is not None and replaced is moved:
            return moved  # two links of one file: rename(2) does nothing
        self.expect(source, name, gone=True)
        self.expect(target, new_name)
        if exchange:
            self.expect(target, new_name, gone=True)
            self.expect(source, name)
        self.nodes.unname(source, name)
        self.nodes.unname(target, new_name)
        if moved is not None:
            before = moved.kind
            self.nodes.name(moved, target, new_name, self.kind(new_name))
            self._settle(moved)
            if moved.kind is not before:  # the kernel carries the old name's timeouts over to the new one
                self.forget_entry(target.id, new_name)
        if replaced is not None:
            if exchange:
                other = replaced.kind
                self.nodes.name(replaced, source, name, self.kind(name))
                self._settle(replaced)
                if replaced.kind is not other:
                    self.forget_entry(source.id, name)
            else:
                self._lost(replaced)
        return moved

    def _settle(self, node: Node) -> None:
        """A rename has moved the inode change time."""
        try:
            self.left(node, self.stat_node(node))
        except OSError:
            node.seen = None
