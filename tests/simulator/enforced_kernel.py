"""As much of a kernel as matters to enforcement: names, nodes, descriptors, and when a request is asked again.

One dentry a name, shared by all processes. A LOOKUP that is answered with another node than the dentry's is asked
twice; ESTALE is tried once more from the lookup on; a node that nothing leads to is forgotten. System calls are
generators where others can come in between two of their requests, plain methods where they cannot.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from ctypes import addressof, c_uint64
from typing import Any, NamedTuple, TypeVar

from guardfs.mount.caller import Caller
from guardfs.mount.layout import EntryParam
from tests.support.direct import ROOT, Direct, finish

_INO = EntryParam.attr.offset + 8
"""From the node id of a reply to the st_ino in it, bytes (struct stat); pyfuse3 shows the node id in its place."""

_T = TypeVar("_T")
Steps = Generator[None, None, _T]


class Attributes(NamedTuple):
    """What a reply said of a node."""

    node: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


class File:
    """An open file."""

    __slots__ = ("created", "flags", "handle", "node", "position")

    def __init__(self, handle: int, node: int, flags: int, created: bool) -> None:
        self.handle, self.node, self.flags, self.created = handle, node, flags, created
        self.position = 0


class Kernel:
    """What it knows of the one directory of a mount. requests: how many were sent. doom: told of each node whose
    content a request is to destroy."""

    def __init__(self, guard: Direct, doom: Callable[[int], None]) -> None:
        self.guard = guard
        self.doom = doom
        self.requests = 0
        self.sizes: dict[int, int] = {}
        self._dentries: dict[bytes, int] = {}
        self._lookups: dict[int, int] = {}  # as the guard counts them
        self._uses: dict[int, int] = {}  # dentries, open files, and walks that are under way
        self._forgets: list[tuple[int, int]] = []
        self._stale: list[bytes] = []
        self._revalidating = False
        self._ino = c_uint64.from_address(addressof(guard.reply._node) + _INO)
        guard.settles_later = True
        guard.forget_entry = lambda parent, name: self._stale.append(name)

    # ---- requests

    def _ask(self, who: Caller, call: Callable[..., _T], *args: Any) -> _T:
        guard = self.guard
        self.requests += 1
        if self._stale and not self._revalidating:  # notifications come between requests
            self._notified()
        if self._forgets and self.requests & 1:  # a FORGET may come late
            guard.forget(self._forgets)
            self._forgets = []
        guard.me = who
        try:
            return call(*args)
        finally:
            self._answer = self._attributes()
            if guard.noted:
                guard.settle()

    def _notified(self) -> None:
        """Forget names, and let the guard know that that is done."""
        stale, self._stale = self._stale, []
        for name in stale:
            self._drop(name)
            self.guard.forgotten(ROOT, name)

    def _attributes(self) -> Attributes:
        reply = self.guard.reply
        values = reply.attributes
        return Attributes(
            reply._node.value, self._ino.value, values.st_size, values.st_mtime_ns, values.st_ctime_ns
        )

    def _lookup(self, who: Caller, name: bytes) -> Attributes | None:
        reply = self._ask(who, self.guard.lookup, ROOT, name, who)
        assert reply is self.guard.reply.attributes
        found = self._answer
        return found if found.node else None

    def _counted(self, found: Attributes) -> Attributes:
        self._lookups[found.node] = self._lookups.get(found.node, 0) + 1
        self.sizes[found.node] = found.size
        return found

    # ---- nodes and names

    def _use(self, node: int) -> None:
        self._uses[node] = self._uses.get(node, 0) + 1

    def _unuse(self, node: int) -> None:
        left = self._uses[node] - 1
        if left:
            self._uses[node] = left
            return
        del self._uses[node]
        self.sizes.pop(node, None)
        self._forgets.append((node, self._lookups.pop(node)))

    def _name(self, name: bytes, node: int) -> None:
        self._use(node)
        self._drop(name)
        self._dentries[name] = node

    def _drop(self, name: bytes) -> None:
        node = self._dentries.pop(name, None)
        if node is not None:
            self._unuse(node)

    def _walk(self, who: Caller, name: bytes) -> Attributes | None:
        """fuse_dentry_revalidate, and fuse_lookup where that says no."""
        if self._stale and self.requests & 1:  # it may come too late for this walk
            self._notified()
        held = self._dentries.get(name)
        self._revalidating = held is not None
        try:
            found = self._lookup(who, name)
        finally:
            self._revalidating = False
        if held is not None:
            if found is not None and found.node == held:
                return self._counted(found)
            if found is not None:
                self._forgets.append((found.node, 1))
            self._drop(name)
            found = self._lookup(who, name)
        if found is not None:
            self._counted(found)
            self._name(name, found.node)
        return found

    # ---- system calls

    def stat(self, who: Caller, name: bytes, again: bool = False) -> Attributes | None:
        """again: the attributes of the lookup are too old by then, and are asked for."""
        for attempt in (1, 2):
            found = self._walk(who, name)
            if found is None or not again:
                return found
            try:
                self._ask(who, self.guard.getattr, found.node, who)
                return self._answer
            except OSError as error:
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
        return None

    def make(self, who: Caller, name: bytes) -> File | None:
        """open(2) with O_CREAT and O_EXCL; None: it is there already."""
        if self._walk(who, name) is not None:
            return None
        return self._make(who, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def _make(self, who: Caller, name: bytes, flags: int) -> File:
        info, _ = self._ask(who, self.guard.create, ROOT, name, 0o600, flags, who)
        self._counted(self._answer)
        node = self._answer.node
        self._name(name, node)
        self._use(node)
        return File(info.fh, node, flags, True)

    def open(self, who: Caller, name: bytes, flags: int) -> Steps[File]:
        """OSError, as open(2)."""
        for attempt in (1, 2):
            found = self._walk(who, name)
            try:
                if found is None:
                    if not flags & os.O_CREAT:
                        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                    return self._make(who, name, flags)
            except OSError as error:
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
                continue
            node = found.node
            self._use(node)
            yield
            try:
                if flags & os.O_TRUNC:
                    self.doom(node)
                info = finish(self._ask(who, self.guard.open, node, flags & ~os.O_CREAT, who))
            except OSError as error:
                self._unuse(node)
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
                continue
            return File(info.fh, node, flags, False)
        raise AssertionError

    def read(self, who: Caller, file: File) -> bytes:
        """All of it."""
        data = b""
        while part := finish(self._ask(who, self.guard.read, file.handle, len(data), 1 << 16)):
            data += bytes(part)
            if len(part) < 1 << 16:
                break
        return data

    def write(self, who: Caller, file: File, data: bytes, at: int | None = None) -> None:
        """at: pwrite(2); else at the end or where the last write ended."""
        offset = file.position if at is None else at
        if file.flags & os.O_APPEND:
            offset = self.sizes.get(file.node, 0)
        while data:  # a write that was cut short is gone on with
            written = finish(self._ask(who, self.guard.write, file.handle, offset, data))
            assert 0 < written <= len(data)
            data = data[written:]
            offset = file.position = offset + written
            self.sizes[file.node] = max(self.sizes.get(file.node, 0), file.position)

    def fstat(self, who: Caller, file: File) -> Attributes:
        self._ask(who, self.guard.getattr, file.node, who)
        self.sizes[file.node] = self._answer.size
        return self._answer

    def fsync(self, who: Caller, file: File) -> None:
        finish(self._ask(who, self.guard.fsync, file.handle, False))

    def close(self, who: Caller, file: File) -> None:
        self._ask(who, self.guard.release, file.handle)
        self._unuse(file.node)

    def by_name(self, who: Caller, name: bytes, call: Callable[[int], object]) -> Steps[bool]:
        """A system call that does *call* to the node of *name*. False: there is none."""
        for attempt in (1, 2):
            found = self._walk(who, name)
            if found is None:
                return False
            self._use(found.node)
            yield
            try:
                self._ask(who, call, found.node)
                return True
            except OSError as error:
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
            finally:
                if found.node in self._uses:
                    self._unuse(found.node)
        return False

    def change(self, who: Caller, name: bytes, **values: int) -> Steps[bool]:
        """chmod, truncate, utimes: fields as in `Direct.change`. False: there is no such file."""

        def act(node: int) -> object:
            if "size" in values:
                self.doom(node)
            return self.guard.change(node, **values)

        return self.by_name(who, name, act)

    def mark(self, who: Caller, name: bytes, value: bytes) -> Steps[bool]:
        """setxattr(2); removexattr(2) where *value* is empty. False: there is no such file."""

        def act(node: int) -> None:
            if value:
                self.guard.setxattr(node, b"user.note", value, who)
            else:
                self.guard.removexattr(node, b"user.note", who)

        return self.by_name(who, name, act)

    def link(self, who: Caller, name: bytes, to: bytes) -> Steps[bool]:
        """False: there is no such file."""

        def act(node: int) -> None:
            self.guard.link(node, ROOT, to, who)
            answer = self._attributes()
            self._counted(answer)
            self._name(to, answer.node)

        return self.by_name(who, name, act)

    def unlink(self, who: Caller, name: bytes) -> bool:
        """False: there is no such file, or no more."""
        for attempt in (1, 2):
            found = self._walk(who, name)
            if found is None:
                return False
            try:
                self.doom(found.node)
                self._ask(who, self.guard.unlink, ROOT, name, who)
                break
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
        self._drop(name)
        return True

    def rename(self, who: Caller, name: bytes, to: bytes) -> bool:
        """False: there is no such file, or no more."""
        for attempt in (1, 2):
            found = self._walk(who, name)
            if found is None:
                return False
            onto = self._walk(who, to)
            try:
                if onto is not None:
                    self.doom(onto.node)
                self._ask(who, self.guard.rename, ROOT, name, ROOT, to, 0, who)
                break
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno != errno.ESTALE or attempt == 2:
                    raise
        self._drop(to)
        node = self._dentries.pop(name, None)
        if node is not None:
            self._dentries[to] = node
        return True
