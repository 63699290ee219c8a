"""Following a live log across rotation, removal and truncation.

Polls: one read and one stat every 50 ms. inotify would save that and needs all of this
all the same, because it tells nothing of what was missed and little on network file systems.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from guardfs.audit.read import Line, decode, files_of
from guardfs.errors import GuardError

TRIES = 100
"""Looks for the next file, each of which a rotation may spoil; then again with the next poll."""

POLL = 0.05
"""Seconds between two looks: an eye calls it live."""


class Follower:
    """Hands out the whole lines of the log at *path* as they come; never blocks, never raises for a log that
    is not there.

    from_start: begin with the current file's first line, else behind its last.
    """

    def __init__(self, path: str, *, from_start: bool = False) -> None:
        self.path = path
        self._fd = -1
        self._inode = 0
        self._at = 0
        self._rest = b""
        self._number = 0
        if self._open(path) and not from_start:
            self._at = self._whole_end()
            self._number = -1

    def poll(self) -> list[Line]:
        """The lines that were finished since the last call, in order, across rotations."""
        found: list[Line] = []
        if self._fd < 0 and not self._open(self.path):
            return found
        self._read(found)
        while self._moved_on():
            self._read(found)  # what was written before the rotation and after the last read
            if self._rest:  # its end will not come any more
                found.append(Line(self.path, 0, self._rest, False, decode(self._rest)))
                self._rest = b""
            if not self._next():
                break
            self._read(found)
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, name: str) -> bool:
        fd = _opened(name)
        if fd < 0:
            return False
        self._take(fd)
        return True

    def _take(self, fd: int) -> None:
        self.close()
        self._fd, self._inode = fd, os.fstat(fd).st_ino
        self._at, self._rest, self._number = 0, b"", 0

    def _whole_end(self) -> int:
        end = os.fstat(self._fd).st_size
        while end:
            step = min(end, 65536)
            found = os.pread(self._fd, step, end - step).rfind(b"\n")
            if found >= 0:
                return end - step + found + 1
            end -= step
        return 0

    def _read(self, found: list[Line]) -> None:
        if os.fstat(self._fd).st_size < self._at:  # cut by others (copytruncate)
            self._at, self._rest, self._number = 0, b"", 0
        while data := os.pread(self._fd, 1 << 18, self._at):
            self._at += len(data)
            parts = (self._rest + data).split(b"\n")
            self._rest = parts.pop()
            for raw in parts:
                if self._number >= 0:
                    self._number += 1
                found.append(Line(self.path, max(self._number, 0), raw, True, decode(raw)))

    def _moved_on(self) -> bool:
        """Whether the name leads to another file now. No file at all means: wait, one is about to be
        begun."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except OSError:
            return False

    def _next(self) -> bool:
        """Opens the file that follows the one read so far: there may have been several rotations since the
        last look, and one may be under way, which renames the oldest file first. False: the next one cannot be told
        yet."""
        for _ in range(TRIES):
            number = self._place()
            if number == 0:
                return self._after_a_gap()
            lower, fd = number - 1, _opened(self._name(number - 1))
            while fd < 0 and lower > 0:  # it is on its way there, or was removed
                lower, fd = lower - 1, _opened(self._name(lower - 1))
            if fd < 0:
                return False
            between = range(lower + 1, number)
            if self._inode_of(number) == self._inode and not any(map(self._inode_of, between)):
                self._take(fd)
                return True
            os.close(fd)  # renamed meanwhile: it may be a later one
        return False

    def _place(self) -> int:
        """The number that the file read so far has got; 0: it is no file of this log any more."""
        if os.fstat(self._fd).st_nlink:
            for number in range(1, self._highest() + 2):  # upwards, as they move
                if self._inode_of(number) == self._inode:
                    return number
        return 0

    def _after_a_gap(self) -> bool:
        """Opens the oldest file that was written to after the one read so far."""
        last = os.fstat(self._fd).st_mtime_ns
        for number in range(self._highest() + 1, 0, -1):
            fd = _opened(self._name(number))
            if fd >= 0:
                if os.fstat(fd).st_mtime_ns > last:
                    self._take(fd)
                    return True
                os.close(fd)
        return self._open(self.path)

    def _highest(self) -> int:
        """The greatest number that a file of this log has; 0 if there is but the current one, or none."""
        try:
            oldest = files_of(self.path)[0]
        except GuardError:
            return 0
        return 0 if oldest == self.path else int(oldest.rpartition(".")[2])

    def _name(self, number: int) -> str:
        return f"{self.path}.{number}" if number else self.path

    def _inode_of(self, number: int) -> int:
        """0: there is none."""
        try:
            return os.stat(self._name(number)).st_ino
        except OSError:
            return 0


def _opened(name: str) -> int:
    """A descriptor to read *name* by; -1 if it cannot be opened."""
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return -1


def follow(
    followers: Sequence[Follower], *, stop: Callable[[], bool] = lambda: False, poll: float = POLL
) -> Iterator[Line]:
    """The lines of all *followers* as they come, those that come together in order of time, until
    *stop()*."""
    while not stop():
        found = [line for follower in followers for line in follower.poll()]
        if len(followers) > 1:
            found.sort(key=time_of)
        yield from found
        if not found:
            time.sleep(poll)


def time_of(line: Line) -> str:
    """The event's time as it stands there: equal in length and zone, so it sorts as text."""
    value = line.event.get("time") if line.event else None
    return value if isinstance(value, str) else ""
