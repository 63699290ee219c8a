"""Which capabilities the guard's own processes keep, and how the others are dropped (capabilities(7)).

Dropping never fails: a right that cannot be given up is kept, as everything was before.
"""

from __future__ import annotations

from collections.abc import Iterable

from guardfs.lanes import procfs
from guardfs.mount import libc

DAEMON = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
"""What a guard of root uses; numbers from include/uapi/linux/capability.h."""

KILL = 5
SETPCAP = 8
SUPERVISOR = {**DAEMON, "CAP_KILL": KILL, "CAP_SETPCAP": SETPCAP}
"""The supervisor also signals a command of another user, and takes rights from what it starts."""

_PR_CAPBSET_DROP = 24  # <linux/prctl.h>
_LAST = 63
"""Numbers beyond the kernel's last are refused with EINVAL, which ends the loop."""


def mask(bits: Iterable[int]) -> int:
    """A set of capabilities as the kernel writes it."""
    return sum(1 << bit for bit in bits)


def current(which: str) -> int:
    """One of this process's sets: "Prm", "Eff", "Inh", "Bnd" or "Amb"; none if /proc does not tell."""
    try:
        field = procfs.status_field(procfs.read("/proc/thread-self/status", 8192), b"Cap" + which.encode())
        return int(field, 16)
    except (OSError, ValueError):
        return 0


def bound(bits: Iterable[int]) -> None:
    """Drop all but *bits* from the bounding set: no program started from here on has more. Needs CAP_SETPCAP."""
    kept = set(bits)
    for bit in range(_LAST + 1):
        if bit in kept:
            continue
        try:
            libc.prctl(_PR_CAPBSET_DROP, bit)
        except OSError:
            return


def keep(bits: Iterable[int]) -> None:
    """Drop all but *bits* from every set of this thread, and of what it starts. To be called before there are other
    threads.
    """
    kept = mask(bits)
    bound(bits)
    try:
        libc.capset(*(current(which) & kept for which in ("Eff", "Prm", "Inh")))
    except OSError:
        pass
