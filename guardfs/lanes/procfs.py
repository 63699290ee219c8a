"""Single files of /proc, read once and parsed. `process.py` decides which, when and how often.

Sources: proc_pid_stat(5), proc_pid_status(5), fs/proc/array.c. OSError means that the process is gone, unless
said otherwise.
"""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

from guardfs.lanes.cgroup import Cgroup, parse_cgroup

ARGS_LIMIT = 32 * 1024  # bytes: what tells programs apart stands at the front
ENVIRON_LIMIT = 256 * 1024  # bytes; the kernel allows megabytes
CLAIM_LIMIT = 256  # characters of GUARDFS_LANE
PARENTS_LIMIT = 64  # a chain that long is a fork bomb, not a history
STAT_SIZE = 1024  # bytes: 52 numbers of at most 20 digits cannot all be that long at once
PF_KTHREAD = 0x00200000  # include/linux/sched.h, unchanged since 2.6
_CLAIM = b"GUARDFS_LANE="


class Stat(NamedTuple):
    """What is used of one ``stat`` line.

    head: up to the thread name's closing parenthesis. tail: from field 45 (start of the data) to the end.
    program: the same without the exit code: changes with execve(), and with nothing else; zeros where the
    kernel does not show it. start: clock ticks after boot. vsize: bytes of address space, 0 for none. stack:
    its address, 0 where not shown or not yet there.
    """

    head: bytes
    tail: bytes
    program: bytes
    comm: str
    ppid: int
    kernel: bool
    start: int
    vsize: int
    stack: int


def parse_stat(data: bytes) -> Stat:
    """One line of /proc/PID/task/TID/stat. The last closing parenthesis ends the thread
    name, which may hold others.

    Raises ValueError for what is not such a line.
    """
    end = data.rindex(b")") + 1
    fields = data[end:].split()
    if len(fields) < 50:
        raise ValueError(f"a stat line of {len(fields)} fields: {data[:80]!r}")
    return Stat(
        head=data[:end],
        tail=b" " + b" ".join(fields[42:]) + b"\n",
        program=b" ".join(fields[42:49]),
        comm=text(data[data.index(b"(") + 1 : end - 1]),
        ppid=int(fields[1]),
        kernel=bool(int(fields[6]) & PF_KTHREAD),
        start=int(fields[19]),
        vsize=int(fields[20]),
        stack=int(fields[25]),
    )


def read(path: str, limit: int) -> bytes:
    """At most *limit* bytes of a file; the kernel hands out long ones in pieces."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, limit)
        if len(data) < 3072:  # one page is the least that a seq file gives at once, unless it is at its end
            return data
        while len(data) < limit and (more := os.read(fd, limit - len(data))):
            data += more
        return data
    finally:
        os.close(fd)


def text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def stat_of(fd: int) -> Stat:
    return parse_stat(os.pread(fd, STAT_SIZE, 0))


def start_of(pid: int) -> int | None:
    """When process *pid* was started, in clock ticks after boot; None if it is gone."""
    try:
        return parse_stat(read(f"/proc/{pid}/stat", STAT_SIZE)).start
    except (OSError, ValueError, IndexError):
        return None


def status_field(data: bytes, name: bytes) -> bytes:
    start = data.index(b"\n" + name + b":") + len(name) + 2
    return data[start : data.index(b"\n", start)].strip()


def executable(tid: int) -> tuple[str | None, bool]:
    """(path, whether it may be read). No path, but readable: the thread has no address space (any more)."""
    try:
        return text(os.readlink(b"/proc/%d/exe" % tid)), True
    except PermissionError:
        return None, False
    except OSError:
        return None, True


def arguments(tid: int) -> tuple[str, ...]:
    """The argument list; a process title leaves padding behind it, which is dropped."""
    try:
        data = read(f"/proc/{tid}/cmdline", ARGS_LIMIT)
    except OSError:
        return ()
    return tuple(text(part) for part in data.rstrip(b"\0").split(b"\0")) if data else ()


def parents(ppid: int) -> tuple[tuple[int, str], ...]:
    """(pid, thread name) from the parent up, to pid 1 or to where our pid namespace ends.

    From ``status``, although ``stat`` is twice as fast: a parent can be inside execve() and wait for us
    there, and ``stat`` would wait for the parent.
    """
    chain: list[tuple[int, str]] = []
    while ppid > 0 and len(chain) < PARENTS_LIMIT:
        try:
            data = b"\n" + read(f"/proc/{ppid}/status", 8192)
            name = status_field(data, b"Name").replace(b"\\n", b"\n").replace(b"\\\\", b"\\")
            above = int(status_field(data, b"PPid"))
        except (OSError, ValueError):
            break
        chain.append((ppid, text(name)))
        ppid = above
    return tuple(chain)


def cgroup_of(tid: int) -> Cgroup:
    try:
        return parse_cgroup(text(read(f"/proc/{tid}/cgroup", 16384)))
    except OSError:
        return Cgroup(None, None, None)


def pid_namespace(tid: int) -> int | None:
    try:
        return int(os.readlink(f"/proc/{tid}/ns/pid")[len("pid:[") : -1])
    except (OSError, ValueError):
        return None


def claim(tid: int) -> str | None:
    try:
        data = b"\0" + read(f"/proc/{tid}/environ", ENVIRON_LIMIT)
    except OSError:
        return None
    _, found, rest = data.partition(b"\0" + _CLAIM)
    return text(rest.partition(b"\0")[0])[:CLAIM_LIMIT] if found else None


def kernel_release() -> tuple[int, int]:
    parts = platform.release().split(".")
    try:
        return int(parts[0]), int("".join(char for char in parts[1] if char.isdigit()) or 0)
    except (ValueError, IndexError):
        return (0, 0)
