"""What an agent remembers of a file, and how two such memories differ. Pure.

OpenClaw keeps dev, ino, size, mtime and ctime in ns (its `stat(2)` with `bigint`), and whether the file exists.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Difference = Literal["same", "times", "rewritten", "grown", "shrunk", "replaced", "created", "gone"]
"""``times``: only mtime or ctime (a chmod, a utimes, a link, a drift; or a rewrite that keeps the size). ``grown``,
``shrunk``: the same file with another size. ``replaced``: another inode or device. ``created``, ``gone``: from or to
absent. ``rewritten`` is never found by comparing: an event says so."""


class Fingerprint(NamedTuple):
    """One state of a transcript: device, inode, size (bytes), modification and change time (ns since the epoch)."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def exists(self) -> bool:
        """Whether there is a file at all."""
        return self.size >= 0


ABSENT = Fingerprint(0, 0, -1, 0, 0)
"""The state of a transcript that does not exist: a fingerprint like any other."""


def same_file(left: Fingerprint, right: Fingerprint) -> bool:
    """Whether both exist and are one inode on one device."""
    return left.size >= 0 and right.size >= 0 and left.ino == right.ino and left.dev == right.dev


def difference(before: Fingerprint, after: Fingerprint) -> Difference:
    """What lies between two fingerprints, in one word."""
    if before == after:
        return "same"
    if before.size < 0:
        return "created"
    if after.size < 0:
        return "gone"
    if before.ino != after.ino or before.dev != after.dev:
        return "replaced"
    if before.size == after.size:
        return "times"
    return "grown" if after.size > before.size else "shrunk"
