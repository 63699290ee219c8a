"""Processes that have lost their parents: they come to the supervisor, as PID 1 or as a child subreaper (prctl(2)).

Every ended one is waited for, so that no zombie stays. As PID 1 the others of the pid namespace are ended, too: the
kernel kills them, and the daemons with them, as soon as PID 1 is gone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection

from guardfs.mount import libc


def adopt() -> None:
    """Be the one that orphans come to, also where this process is not PID 1."""
    try:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    except OSError:  # a kernel before 3.4; the machine's PID 1 reaps them then
        pass


def reap(own: Collection[subprocess.Popen[bytes]]) -> None:
    """Wait for every child that has ended. *own*: all that this process itself has started and still asks about; their
    return codes are left for them.
    """
    known = {process.pid: process for process in own if process.returncode is None}
    while True:
        try:
            # looked at first and left where it is: the status of one of our own belongs to its Popen
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        process = known.pop(found.si_pid, None)
        if process is not None:
            process.poll()
        else:
            os.waitpid(found.si_pid, os.WNOHANG)


def is_first() -> bool:
    """Whether this process is PID 1 and sees its own pid namespace in /proc."""
    try:
        return os.getpid() == 1 and os.readlink("/proc/self") == "1"
    except OSError:
        return False


def others(kept: Collection[int]) -> list[int]:
    """The living processes of this pid namespace but this one, and but *kept* with all that descend from them: a daemon
    has helpers of its own. For PID 1 only (`is_first`).
    """
    parents = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        parent = _parent(pid)
        if parent is not None and pid != os.getpid():
            parents[pid] = parent

    def is_kept(pid: int) -> bool:
        while pid in parents and pid not in kept:
            pid = parents[pid]
        return pid in kept

    return [pid for pid in parents if not is_kept(pid)]


def _parent(pid: int) -> int | None:
    """The parent of a living process, 0 for one that has come in from outside; None for a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(parent)


def signal_all(pids: Collection[int], number: int) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass
