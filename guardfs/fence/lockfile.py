"""What a lock file says of its holder. Pure.

OpenClaw writes `{"pid": ..., "createdAt": ..., "starttime": ...}` into `<transcript>.lock`; `starttime` is
field 22 of /proc/PID/stat, in clock ticks after boot, and tells a process from a later one with the same id.
"""

from __future__ import annotations

from typing import Literal

import msgspec

_KEEPS = b'"maxHoldMs"'

Liveness = Literal["alive", "dead", "unknown"]


class LockHolder(msgspec.Struct, frozen=True):
    """The holder that a lock file names; None where it does not say. kept: as `is_kept`."""

    pid: int | None = None
    starttime: int | None = None
    kept: bool = False


def is_kept(content: bytes) -> bool:
    """Whether a lock file that says this is kept while the model answers, up to the time that it names: so do runs of
    2026.7.35, which also write their transcript as a whole, where those of 2026.5.20 append."""
    return _KEEPS in content


def parse_holder(content: bytes) -> LockHolder:
    """The holder; an empty one for a lock that is torn, empty, or of another kind."""
    try:
        found = msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return LockHolder()
    if not isinstance(found, dict):
        return LockHolder()
    pid, start = found.get("pid"), found.get("starttime")
    return LockHolder(
        pid if isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else None,
        start if isinstance(start, int) and not isinstance(start, bool) else None,
        is_kept(content),
    )


def liveness(holder: LockHolder, start_of_pid: int | None) -> Liveness:
    """Whether the holder lives, given the start time of the process that has its id now (None: there is
    none).

    ``unknown`` where the lock names no process. A process of another pid namespace shows as dead here.
    """
    if holder.pid is None:
        return "unknown"
    if start_of_pid is None:
        return "dead"
    if holder.starttime is not None and holder.starttime != start_of_pid:
        return "dead"
    return "alive"
