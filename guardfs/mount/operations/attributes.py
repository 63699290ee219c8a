"""Operations on attributes: getattr, setattr, extended attributes, readlink, statfs."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.mount import libc
from guardfs.mount.nodes import ROOT_ID, Node
from guardfs.mount.operations.core import now
from guardfs.mount.operations.files import Files, without_set_id
from guardfs.mount.operations.parts import Context
from guardfs.policy.judge import CLAIM, MAX_CLAIM

STATUS = b"user.guardfs.status"
COUNTERS = b"user.guardfs.counters"
CONTROL = b"user.guardfs.control"
_ATIME_NOW, _MTIME_NOW = 1 << 7, 1 << 8  # FUSE_SET_ATTR_*_NOW of <fuse_lowlevel.h>


def _time(update: bool, is_now: bool, ns: int) -> tuple[int, int]:
    if not update:
        return 0, libc.UTIME_OMIT
    if is_now:
        return 0, libc.UTIME_NOW
    return divmod(ns, 1_000_000_000)


class Attributes(Files):
    """getattr, setattr, readlink, statfs, access and the extended attributes."""

    def getattr(self, node_id: int, ctx: Context) -> pyfuse3.EntryAttributes:
        """Attributes of a node; of transcripts and locks, a look."""
        begin = now()
        node = self.node(node_id)
        st = self.stat_node(node)
        self.saw(node, st)
        if node.kind and self.audit.wants("look", node.kind):
            self.note(
                "look",
                begin,
                ctx,
                node.kind,
                node.path(),
                0,
                node,
                size=st.st_size,
                fenced=False,  # an fstat, or the second half of a stat whose lookup was told
                detail={"via": "getattr"},
            )
        times = self.times(node, st)
        return self.reply.fill(node.id, st, times.entry, times.attributes)

    def setattr(
        self,
        node_id: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        number: int | None,
        ctx: Context,
    ) -> pyfuse3.EntryAttributes:
        """chmod, chown, truncate and utimens, in one request as the kernel sends them."""
        begin = now()
        node = self.node(node_id)
        flags = self.request_flags
        op = "truncate" if fields.update_size else "attributes"
        more: dict[str, Any] = {"detail": {"change": _described(attr, fields)}}
        if fields.update_size:
            more["size"] = attr.st_size
        more["before"] = self.state(node)
        try:
            self.gate()
            self._apply(node, attr, fields, flags, number, ctx)
            st = self.stat_node(node)
        except OSError as error:
            self.note(op, begin, ctx, node.kind, node.path(), error.errno or errno.EIO, node, **more)
            raise
        self.left(node, st)
        self.note(op, begin, ctx, node.kind, node.path(), 0, node, **more)
        times = self.times(node, st)
        return self.reply.fill(node.id, st, times.entry, times.attributes)

    def _apply(
        self,
        node: Node,
        attr: Any,
        fields: pyfuse3.SetattrFields,
        flags: int,
        number: int | None,
        ctx: Context,
    ) -> None:
        path = self.fds.path(node)
        if fields.update_size:
            handle = self.handles.get(number) if number is not None else None
            if handle is not None and handle.writable:
                self.below.ftruncate(handle.fd, attr.st_size)
            else:
                self.below.truncate(path, attr.st_size)
            self._drop_set_id_by_path(path, ctx)
        if fields.update_uid or fields.update_gid:  # before the mode: chown clears set-id bits
            uid = attr.st_uid if fields.update_uid else -1
            gid = attr.st_gid if fields.update_gid else -1
            self.below.chown(path, uid, gid)
        if fields.update_mode:
            self.below.chmod(path, stat.S_IMODE(attr.st_mode))
        if fields.update_atime or fields.update_mtime:
            atime = _time(fields.update_atime, bool(flags & _ATIME_NOW), attr.st_atime_ns)
            mtime = _time(fields.update_mtime, bool(flags & _MTIME_NOW), attr.st_mtime_ns)
            self.below.utimens(path, atime, mtime)

    def _drop_set_id_by_path(self, path: bytes, ctx: Context) -> None:
        st = self.below.stat(path)
        if st.st_mode & 0o6000 and ctx.uid != 0:
            self.below.chmod(path, without_set_id(st.st_mode))

    def readlink(self, node_id: int, ctx: Context) -> bytes:
        """The target of a symbolic link."""
        return os.fsencode(self.below.readlink(b"", dir_fd=self.fds.of(self.node(node_id))))

    def statfs(self, ctx: Context) -> pyfuse3.StatvfsData:
        """The file system below."""
        below = self.below.statvfs(self.fds.of(self.nodes.root))
        reply = pyfuse3.StatvfsData()
        for field in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_namemax",
        ):
            setattr(reply, field, getattr(below, field))
        return reply

    def access(self, node_id: int, mode: int, ctx: Context) -> bool:
        """Never asked: the kernel decides by itself (default_permissions)."""
        return True

    def getxattr(self, node_id: int, name: bytes, ctx: Context) -> bytes:
        """An extended attribute; `user.guardfs.status` of the root and of transcripts is the guard's own, and
        `user.guardfs.counters` and `user.guardfs.control` of the root."""
        if node_id == ROOT_ID and name == STATUS:
            return self.status()
        if node_id == ROOT_ID and name == COUNTERS:
            return self.counters.encode()
        if node_id == ROOT_ID and name == CONTROL:
            return self.answer(self.processes.writer(ctx.pid, ctx.uid, ctx.gid))
        node = self.node(node_id)
        if name == STATUS and node.kind is Kind.TRANSCRIPT:
            return self.status_of(node.path())
        if name == CLAIM and node.kind is Kind.TRANSCRIPT and not node.is_dir:
            return self._claimed(node, ctx)
        if node.opened:  # the usual question: security.capability, before the first write to a new file
            return self.below.getxattr(node.opened[-1], name)
        return self.below.getxattr(self.fds.path(node), name)

    def listxattr(self, node_id: int, ctx: Context) -> list[bytes]:
        """The names of the extended attributes below; the guard's own is not listed, so that copies do not
        carry it.
        """
        return [os.fsencode(name) for name in self.below.listxattr(self.fds.path(self.node(node_id)))]

    def setxattr(self, node_id: int, name: bytes, value: bytes, ctx: Context) -> None:
        """Set an extended attribute; XATTR_CREATE and XATTR_REPLACE are decided by the file system below."""
        flags = self.request_flags
        if node_id == ROOT_ID and name == CONTROL:
            self.ask(self.processes.writer(ctx.pid, ctx.uid, ctx.gid), value)
            return
        if name == CLAIM and self._claims(node_id, ctx, value):
            return
        self._xattr(node_id, name, ctx, "set", lambda path: self.below.setxattr(path, name, value, flags))

    def removexattr(self, node_id: int, name: bytes, ctx: Context) -> None:
        """Remove an extended attribute."""
        if node_id == ROOT_ID and name == CONTROL:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if name == CLAIM and self._claims(node_id, ctx, None):
            return
        self._xattr(node_id, name, ctx, "remove", lambda path: self.below.removexattr(path, name))

    def _claims(self, node_id: int, ctx: Context, value: bytes | None) -> bool:
        """Take in what a process claims to be, or does no longer; False if the file is no transcript. Nothing is
        written below: an attribute would move the file's ctime, and that alone fails a turn."""
        node = self.node(node_id)
        if node.kind is not Kind.TRANSCRIPT or node.is_dir:
            return False
        begin = now()
        writer = self.processes.writer(ctx.pid, ctx.uid, ctx.gid)
        lane = None if value is None else value.decode("utf-8", "backslashreplace")
        number = 0
        if lane is None and self.judge.claimed(writer, node.path()) is None:
            number = errno.ENODATA
        elif lane is not None and not 0 < len(lane) <= MAX_CLAIM:
            number = errno.EINVAL
        else:
            self.judge.claim(writer, node.path(), lane)
        detail = {"name": CLAIM.decode(), "action": "remove" if lane is None else "set"}
        self.note("xattr", begin, ctx, node.kind, node.path(), number, node, fenced=False, detail=detail)
        if number:
            raise OSError(number, os.strerror(number))
        return True

    def _claimed(self, node: Node, ctx: Context) -> bytes:
        """What the caller's process has claimed to be on this transcript."""
        lane = self.judge.claimed(self.processes.writer(ctx.pid, ctx.uid, ctx.gid), node.path())
        if lane is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return lane.encode()

    def _xattr(self, node_id: int, name: bytes, ctx: Context, action: str, call: Any) -> None:
        begin = now()
        node = self.node(node_id)
        detail = {"name": name.decode("utf-8", "backslashreplace"), "action": action}
        before = self.state(node)
        try:
            if node_id == ROOT_ID and name in (STATUS, COUNTERS):
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            self.gate()
            call(self.fds.path(node))
        except OSError as error:
            self.note(
                "xattr", begin, ctx, node.kind, node.path(), error.errno or errno.EIO, node, detail=detail
            )
            raise
        try:
            self.left(node, self.stat_node(node))
        except OSError:
            node.seen = None
        self.note("xattr", begin, ctx, node.kind, node.path(), 0, node, before=before, detail=detail)


def _described(attr: Any, fields: pyfuse3.SetattrFields) -> dict[str, Any]:
    """What a setattr changes, for the log."""
    change: dict[str, Any] = {}
    if fields.update_mode:
        change["mode"] = f"{stat.S_IMODE(attr.st_mode):o}"
    if fields.update_uid:
        change["uid"] = attr.st_uid
    if fields.update_gid:
        change["gid"] = attr.st_gid
    if fields.update_size:
        change["size"] = attr.st_size
    if fields.update_atime:
        change["atime_ns"] = attr.st_atime_ns
    if fields.update_mtime:
        change["mtime_ns"] = attr.st_mtime_ns
    return change
