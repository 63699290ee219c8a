"""Proof, before the guard calls itself ready, that it can name the writer of a single write.

`layout` describes the inside of pyfuse3's objects; should a new version differ in a way that sizes do not
show, every event would name the wrong writer. So a thread of the daemon, whose id is known, opens and writes
a file through the mount, and the file system compares the callers that it is shown. The file exists nowhere:
its name is random, and only the check knows it. By the way it is looked whether the numbers of its requests are found.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from itertools import pairwise
from typing import Any

import pyfuse3
import trio

from guardfs.errors import GuardError
from guardfs.mount.filesystem import FileSystem
from guardfs.mount.layout import MEND, Entry, unique_of

_NODE = (1 << 62) + 1  # far above any node id that is ever given out
_HANDLE = (1 << 62) + 1


class _Probe:
    """Stands in for four operations while the check runs, for one name only."""

    def __init__(self, filesystem: FileSystem, name: bytes) -> None:
        self._filesystem = filesystem
        self._name = name
        self.seen: dict[str, int] = {}
        self.uniques: list[int] = []
        self._entry = Entry()

    def install(self) -> None:
        for name in ("lookup", "getattr", "open", "write", "release"):
            setattr(self._filesystem, name, getattr(self, name))

    def remove(self) -> None:
        for name in ("lookup", "getattr", "open", "write", "release"):
            vars(self._filesystem).pop(name, None)

    def _number(self) -> None:
        self.uniques.append(unique_of(self._filesystem.request))

    def numbered(self) -> bool:
        """Whether the requests' numbers were read from the right place: the kernel's are even, and grow."""
        first, *others = self.uniques
        grown = all(before < after for before, after in pairwise(self.uniques))
        return grown and others[-1] - first < 1 << 32 and not any(number & 1 for number in self.uniques)

    def _attributes(self) -> pyfuse3.EntryAttributes:
        values = os.stat_result((stat.S_IFREG | 0o600, _NODE, 0, 1, os.geteuid(), os.getegid(), 0, 0, 0, 0))
        attributes = self._entry.attributes
        for field in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size"):
            setattr(attributes, field, getattr(values, field))
        attributes.st_ino = _NODE
        attributes.entry_timeout = attributes.attr_timeout = 0
        return attributes

    def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        if name != self._name:
            return type(self._filesystem).lookup(self._filesystem, parent, name, ctx)
        self.seen["lookup"] = ctx.pid
        self._number()
        return self._attributes()

    def getattr(self, node: int, ctx: Any) -> Any:
        if node != _NODE:
            return type(self._filesystem).getattr(self._filesystem, node, ctx)
        return self._attributes()

    def open(self, node: int, flags: int, ctx: Any) -> Any:
        if node != _NODE:
            return type(self._filesystem).open(self._filesystem, node, flags, ctx)
        self.seen["open"] = ctx.pid
        self._number()
        return pyfuse3.FileInfo(fh=_HANDLE)

    def write(self, handle: int, offset: int, data: bytes) -> Any:
        if handle != _HANDLE:
            return type(self._filesystem).write(self._filesystem, handle, offset, data)
        self.seen["write"] = self._filesystem.caller().pid
        self._number()
        return len(data)

    def release(self, handle: int) -> Any:
        if handle != _HANDLE:
            return type(self._filesystem).release(self._filesystem, handle)
        return None


async def prove_attribution(filesystem: FileSystem, mountpoint: str) -> None:
    """Raise GuardError unless a write through the mount is seen to come from the thread that makes it."""
    name = f".guardfs-check-{secrets.token_hex(12)}"
    probe = _Probe(filesystem, name.encode())
    tids: list[int] = []

    def write() -> None:
        tids.append(threading.get_native_id())
        fd = os.open(os.path.join(mountpoint, name), os.O_WRONLY)
        try:
            os.write(fd, b"who am I?\n")
        finally:
            os.close(fd)

    probe.install()
    try:
        await trio.to_thread.run_sync(write)
    except OSError as error:
        raise GuardError(
            f"the guard cannot write through its own mount: {error.strerror}",
            "`guardfs doctor` looks for the reason",
        ) from None
    finally:
        probe.remove()
    if probe.seen != {"lookup": tids[0], "open": tids[0], "write": tids[0]}:
        raise GuardError(
            f"the writer of a write cannot be told: thread {tids[0]} was seen as {probe.seen}",
            MEND,
        )
    if not probe.numbered() and filesystem.keeper is not None:
        filesystem.keeper.gave_up(f"the numbers of requests: {probe.uniques}")
