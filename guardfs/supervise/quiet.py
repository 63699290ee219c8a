"""A quiet moment: no turn in flight, as far as the files tell.

A mount, and an unmount, gives every file of the directory another device number, and an agent that compares
fingerprints takes that for a foreign change. While a turn runs, lock files come and go several times a
second; so a moment is quiet when no live lock is there and nothing was created or removed for a second.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Generator

from guardfs.fence.lockfile import liveness, parse_holder
from guardfs.transcript.names import NameRules

SETTLED_SECONDS = 1.0
_STALE_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LOCK_BYTES = 4096


def _start_of(pid: int) -> int | None:
    """Start time of process *pid* in clock ticks after boot, or None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def live_locks(directory: int, names: NameRules) -> list[str]:
    """The lock files in *directory* (a descriptor that can be listed) whose holder lives, or may live."""
    found = []
    for name in os.listdir(directory):
        raw = os.fsencode(name)
        if names.transcript_of(raw) is None:
            continue
        lock = _read_lock(raw, directory)
        if lock is None:
            continue
        content, age = lock
        holder = parse_holder(content)
        state = liveness(holder, _start_of(holder.pid) if holder.pid else None)
        # a holder that is not to be seen may live in another pid namespace: then the age of the lock decides
        if state == "alive" or age < _STALE_SECONDS:
            found.append(name)
    return sorted(found)


def _read_lock(name: bytes, directory: int) -> tuple[bytes, float] | None:
    """Content and age in seconds of a lock file; None for what is gone, or no file that could be a lock."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            return None
        return os.read(fd, _LOCK_BYTES), time.time() - facts.st_mtime
    except OSError:
        return None
    finally:
        os.close(fd)


def why_not_quiet(directory: int, names: NameRules) -> str:
    """The reason why this is no quiet moment, or an empty string."""
    locks = live_locks(directory, names)
    if locks:
        more = f" and {len(locks) - 1} more" if len(locks) > 1 else ""
        return f"{locks[0]}{more} is held"
    age = time.time() - os.fstat(directory).st_mtime
    if 0 <= age < SETTLED_SECONDS:
        return "files come and go"
    return ""


def wait_for_quiet(
    directory: int, names: NameRules, timeout: float, *, impatient: Callable[[float], bool] | None = None
) -> str:
    """Wait up to *timeout* seconds; an empty string once it is quiet, else the reason why it is not.

    impatient: waits for the given seconds and says whether to stop waiting (a signal came).
    """
    deadline = time.monotonic() + timeout
    while True:
        reason = why_not_quiet(directory, names)
        if not reason or time.monotonic() >= deadline:
            return reason
        if impatient is None:
            time.sleep(_POLL_SECONDS)
        elif impatient(_POLL_SECONDS):
            return reason


def quiet_moment(
    directory: int, names: NameRules, timeout: float, impatient: Callable[[], bool]
) -> Generator[float, None, str]:
    """`wait_for_quiet` in steps: yields the seconds after which it wants to look again."""
    deadline = time.monotonic() + timeout
    while True:
        reason = why_not_quiet(directory, names)
        if not reason or impatient() or time.monotonic() >= deadline:
            return reason
        yield _POLL_SECONDS
