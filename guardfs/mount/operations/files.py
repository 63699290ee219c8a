"""Operations on open files: open, read, write, fsync, flush, release."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.closing import let_go
from guardfs.fence.fingerprint import Fingerprint
from guardfs.mount.caller import Caller
from guardfs.mount.nodes import Node
from guardfs.mount.operations.core import Core, now
from guardfs.mount.operations.names import Names, open_flags
from guardfs.mount.operations.parts import Context, Handle, Later
from guardfs.policy.facts import operation_class
from guardfs.state.branches import read_all

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


def _access(flags: int) -> str:
    return ("read", "write", "read-write", "path")[flags & os.O_ACCMODE]


def without_set_id(mode: int) -> int:
    """The permission bits of *mode* after a change by anybody but root; set-group-id without group execution means
    something else (inode(7))."""
    mode = stat.S_IMODE(mode) & ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


class Files(Names, Core):
    """open, read, write, fsync, flush, release."""

    _may_not_wait = _NOWAIT != 0  # cleared where the file system below cannot say that a read would block

    def open(self, node_id: int, flags: int, ctx: Context) -> pyfuse3.FileInfo:
        """Open a file for the caller; O_TRUNC comes with it."""
        begin = now()
        node = self.node(node_id)
        truncates = flags & os.O_TRUNC != 0
        detail = {"access": _access(flags), **({"truncate": True} if truncates else {})}
        before = self.state(node)
        try:
            if truncates:
                self.gate()
            fd = self._open_below(node, flags)
            try:
                if truncates:
                    self._empty(node, fd, flags, ctx)
                handle = self.handle(fd, node, flags)
            except BaseException:
                let_go(fd)
                raise
        except OSError as error:
            op = "truncate" if truncates else "open"
            self.note(op, begin, ctx, node.kind, node.path(), error.errno or errno.EIO, node, detail=detail)
            raise
        append = flags & os.O_APPEND != 0
        if truncates:
            self.note(
                "truncate",
                begin,
                ctx,
                node.kind,
                node.path(),
                0,
                node,
                before=before,
                size=0,
                append=append,
                detail=detail,
            )
        else:
            writes = flags & os.O_ACCMODE != os.O_RDONLY
            self.note(
                "open",
                begin,
                ctx,
                node.kind,
                node.path(),
                0,
                node,
                writes=writes,
                append=append,
                detail=detail,
            )
        return handle

    def _open_below(self, node: Node, flags: int) -> int:
        """Open by name and check the inode, which is cheaper than by descriptor; by descriptor where that
        fails.
        """
        wanted = open_flags(flags)
        for parent, name in node.names[-1:]:
            try:
                fd = self.open_below(name, wanted, dir_fd=self.fds.of(parent))
            except OSError:
                break
            try:
                st = self.below.fstat(fd)
            except BaseException:
                let_go(fd)
                raise
            if (st.st_dev, st.st_ino) == (node.dev, node.ino):
                return fd
            let_go(fd)
        return self.open_below(self.fds.path(node), wanted & ~os.O_NOFOLLOW)

    def _empty(self, node: Node, fd: int, flags: int, ctx: Context) -> None:
        if flags & os.O_ACCMODE == os.O_RDONLY:
            self.below.truncate(self.fds.path(node), 0)
        else:
            self.below.ftruncate(fd, 0)
        try:
            st = self.below.fstat(fd)
            self.left(node, st)
            self.drop_set_id(node, st, ctx, fd)
        except OSError:  # it is empty all the same
            node.seen = None

    def drop_set_id(self, node: Node, st: os.stat_result, ctx: Context, fd: int) -> None:
        """Clear set-user-id and set-group-id after a change by anybody but root, as write(2) does
        (inode(7)).
        """
        if not st.st_mode & 0o6000 or ctx.uid == 0 or not stat.S_ISREG(st.st_mode):
            return
        mode = without_set_id(st.st_mode)
        if mode != stat.S_IMODE(st.st_mode):
            self.below.fchmod(fd, mode)
            self.left(node, self.below.fstat(fd))

    def _handle(self, number: int) -> Handle:
        handle = self.handles.get(number)
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def read(self, number: int, offset: int, size: int) -> bytes | bytearray | memoryview | Later:
        """Read; at once what the page cache holds, in a thread what the disk must give."""
        begin = now()
        handle = self._handle(number)
        node = handle.node
        caller = self.caller() if self.audit.wants("read", node.kind) else None
        if self._never_waits:
            try:
                data = read_all(self.below.pread, handle.fd, size, offset)
            except OSError as error:
                self._noted_read(handle, offset, 0, begin, caller, error.errno or errno.EIO)
                raise
            self._noted_read(handle, offset, len(data), begin, caller)
            return data
        if self._may_not_wait:
            buffer = bytearray(size)
            try:
                got = self.below.preadv(handle.fd, [buffer], offset, _NOWAIT)
            except BlockingIOError:
                return self._read_later(handle, offset, size, begin, caller)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    self._noted_read(handle, offset, 0, begin, caller, error.errno or errno.EIO)
                    raise
                self._may_not_wait = False
                return self._read_later(handle, offset, size, begin, caller)
            if got < size and offset + got < self.below.fstat(handle.fd).st_size:
                # a part was not in memory; a short answer would read as the end of the file
                return self._read_later(handle, offset, size, begin, caller)
            self._noted_read(handle, offset, got, begin, caller)
            return memoryview(buffer)[:got] if got < size else buffer
        return self._read_later(handle, offset, size, begin, caller)

    def _read_later(self, handle: Handle, offset: int, size: int, begin: int, caller: Caller | None) -> Later:
        def then(data: bytes) -> bytes:
            self._noted_read(handle, offset, len(data), begin, caller)
            return data

        def failed(error: OSError) -> None:
            self._noted_read(handle, offset, 0, begin, caller, error.errno or errno.EIO)

        return Later(lambda: read_all(self.below.pread, handle.fd, size, offset), then, failed)

    def _noted_read(
        self, handle: Handle, offset: int, got: int, begin: int, caller: Caller | None, errno_: int = 0
    ) -> None:
        if caller is not None:
            node = handle.node
            self.note("read", begin, caller, node.kind, node.path(), errno_, node, offset=offset, size=got)

    def write(self, number: int, offset: int, data: bytes) -> int | Later:
        """Write; an appending handle lands at the end of the file whatever *offset* says.

        A file that was opened with O_SYNC or O_DSYNC is written like any other, and then brought to the disk in a
        thread before the caller is answered.
        """
        begin = now()
        handle = self._handle(number)
        caller = self.caller()
        try:
            self.gate()
            written = self.below.pwrite(handle.fd, data, offset)
        except OSError as error:
            self._not_written(handle, offset, begin, caller, error)
            raise
        self._wrote(handle, offset, data, written, begin, caller)
        if handle.sync is not None:
            bring: Any = getattr(self.below, handle.sync)

            def failed(error: OSError) -> None:
                self.note(
                    "sync",
                    begin,
                    caller,
                    handle.node.kind,
                    handle.node.path(),
                    error.errno or errno.EIO,
                    handle.node,
                )

            return Later(lambda: bring(handle.fd), lambda _: written, failed, written)
        return written

    def _wrote(
        self, handle: Handle, offset: int, data: bytes, written: int, begin: int, caller: Caller
    ) -> None:
        """After a write that succeeded: whatever goes wrong here, the caller is told of its success."""
        node = handle.node
        try:
            st = self.below.fstat(handle.fd)
            before, state = node.seen, self.state(node)
            self.left(node, st)
            if handle.append:
                offset = st.st_size - written
            if before is not None:
                expected = before[0] + written if handle.append else max(before[0], offset + written)
                if st.st_size != expected:
                    self.unseen(node.path(), node.kind, "modified", before, node.seen, node)
            if node.setid:
                self.drop_set_id(node, st, caller, handle.fd)
            size_before = before[0] if before is not None else st.st_size - written
            whole = data if written == len(data) else data[:written]
            self._note_write(handle, offset, written, begin, caller, 0, size_before, whole, state)
        except Exception:
            self.internal_error("write, after it was done")

    def _not_written(self, handle: Handle, offset: int, begin: int, caller: Caller, error: OSError) -> None:
        seen = handle.node.seen
        before = seen[0] if seen is not None else None
        self._note_write(handle, offset, 0, begin, caller, error.errno or errno.EIO, before)

    def _note_write(
        self,
        handle: Handle,
        offset: int,
        size: int,
        begin: int,
        caller: Caller,
        errno_: int,
        size_before: int | None,
        data: bytes | None = None,
        before: Fingerprint | None = None,
    ) -> None:
        """Tell of a write, done or failed. size_before: the file's, bytes, None where unknown."""
        node = handle.node
        self.note(
            "write",
            begin,
            caller,
            node.kind,
            node.path(),
            errno_,
            node,
            offset=offset,
            size=size,
            append=handle.append,
            data=None if node.kind is Kind.OTHER else data,
            before=before,
            operation=operation_class("write", append=handle.append, offset=offset, size_before=size_before),
        )

    def fsync(self, number: int, datasync: bool) -> Later:
        """Bring a file to the disk, in a thread."""
        begin = now()
        handle = self._handle(number)
        node, caller = handle.node, self.caller()
        call: Any = self.below.fdatasync if datasync else self.below.fsync

        def then(_: Any) -> None:
            self.note("sync", begin, caller, node.kind, node.path(), 0, node)

        def failed(error: OSError) -> None:
            self.note("sync", begin, caller, node.kind, node.path(), error.errno or errno.EIO, node)

        return Later(lambda: call(handle.fd), then, failed)

    def flush(self, number: int) -> None:
        """Nothing is held back, so nothing is flushed; ENOSYS once, and the kernel does not ask again."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def release(self, number: int) -> None:
        """The last descriptor of an open file is closed; nobody waits for the answer."""
        begin = now()
        handle = self.handles.pop(number, None)
        if handle is None:
            return
        node = handle.node
        node.opened.remove(handle.fd)
        if not node.names and not node.opened and not node.pinned and self.nodes.get(node.id) is node:
            # unlinked while it was open, and the kernel has not forgotten it yet
            try:
                node.opened.append(handle.fd)
                self.fds.pin(node)
            except OSError:
                pass
            finally:
                node.opened.remove(handle.fd)
        if self.keeper is not None:
            self.keeper.nodes.closed(handle)
        self.below.close(handle.fd)
        if self.audit.wants("close", node.kind):
            self.note("close", begin, self.caller(), node.kind, node.path(), 0, node)
