"""Who did an operation: plain data, filled by `process.py`, read by everybody else. Pure.

Words as in the design: a *writer* is the process metadata behind one operation; a *lane* is the label given
to it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Known = Literal["ok", "exited", "kernel", "outside", "hidden"]
"""How much is known of a caller.

``ok``       everything that /proc tells was read.
``exited``   the thread was gone before /proc could be read (it was killed while it waited).
``kernel``   a kernel thread: no executable, no arguments.
``outside``  FUSE reported pid 0: the caller lives outside the guard's pid namespace.
``hidden``   it lives, but the guard may not read its executable (no CAP_SYS_PTRACE).
"""


class Process(msgspec.Struct, frozen=True, eq=False):
    """One program run by one process. A process that calls execve() becomes another `Process`.

    start: clock ticks after boot (/proc/PID/stat, field 22). args: masked later, raw here. parents: (pid,
    thread name) from the parent up to pid 1. cgroup: path in the unified hierarchy, or the longest of the v1
    paths. container: id or None. pidns: inode number of the pid namespace or None.
    """

    tgid: int
    start: int
    exe: str | None
    args: tuple[str, ...]
    parents: tuple[tuple[int, str], ...]
    cgroup: str | None
    container: str | None
    runtime: str | None
    pidns: int | None
    environ_lane: str | None = None


class Writer(msgspec.Struct, frozen=True, eq=False):
    """One thread of one process, with the identity that it used for one operation.

    tid, tgid: in the guard's pid namespace; 0 for ``outside``. main: whether the thread is the thread group
    leader. comm: the thread's own name, at most 15 bytes. uid, gid: fsuid and fsgid of the request, as FUSE
    reports them.
    """

    tid: int
    tgid: int
    main: bool
    comm: str
    uid: int
    gid: int
    known: Known
    process: Process | None
