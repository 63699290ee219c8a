"""A file system of one directory, small enough to read: names, inodes, bytes, and times that only grow."""

from __future__ import annotations

from guardfs.fence.fingerprint import ABSENT, Fingerprint


class File:
    """One inode."""

    def __init__(self, ino: int, now: int) -> None:
        self.ino = ino
        self.data = b""
        self.mtime = self.ctime = now


class Files:
    """What lies below the mount. Every change takes one tick of its clock, so no two states look alike."""

    def __init__(self) -> None:
        self._names: dict[str, File] = {}
        self._now = 0
        self._inos = 100

    def fingerprint(self, name: str) -> Fingerprint:
        """What a stat would say."""
        file = self._names.get(name)
        return ABSENT if file is None else Fingerprint(1, file.ino, len(file.data), file.mtime, file.ctime)

    def read(self, name: str) -> bytes:
        return self._names[name].data

    def exists(self, name: str) -> bool:
        return name in self._names

    def create(self, name: str) -> None:
        self._now += 1
        self._inos += 1
        self._names[name] = File(self._inos, self._now)

    def append(self, name: str, data: bytes) -> None:
        self._write(name, self.read(name) + data)

    def truncate(self, name: str, size: int) -> None:
        self._write(name, self.read(name)[:size])

    def overwrite(self, name: str, data: bytes) -> None:
        """From the beginning, as far as it reaches."""
        self._write(name, data + self.read(name)[len(data) :])

    def _write(self, name: str, data: bytes) -> None:
        self._now += 1
        file = self._names[name]
        file.data = data
        file.mtime = file.ctime = self._now

    def change_attributes(self, name: str) -> None:
        """A chmod, or a drift: only the ctime moves."""
        self._now += 1
        self._names[name].ctime = self._now

    def rename(self, name: str, to: str) -> None:
        self._now += 1
        file = self._names[to] = self._names.pop(name)
        file.ctime = self._now

    def unlink(self, name: str) -> None:
        del self._names[name]
