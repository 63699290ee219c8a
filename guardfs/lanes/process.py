"""The one reader of /proc: from the thread id that FUSE reports to a `Writer`.

While a request waits, its caller is blocked in a system call, so what is read then is true. Between two
requests a thread id can be given to another thread and a process can exec in place. So each thread seen is
held by an open descriptor of its ``stat`` file, which is read again at every request. The descriptor names
the thread, not the number: it fails with ESRCH once the thread is gone. In its text stand the thread name and
the addresses at which the running program's data, heap start, arguments and environment lie; execve() draws
those anew. (auxv looks cheaper and is no use: its descriptor goes on answering after an exec.)

Sources: proc_pid_stat(5), fs/proc/array.c, fs/exec.c. What must not be done on the way to an answer, because
the caller may hold the lock while it waits for us:

* execve() closes close-on-exec descriptors under exec_update_lock, and FLUSH is sent from there. Opening
  environ then waits for the caller, which waits for us; on recent kernels so do stat and exe. **FLUSH must be
  answered without asking for its writer.** No other request comes from in there. (Before
  Linux 5.7 the lock that environ takes is held all through execve(), reading the program file included: there
  environ is left alone.)
* /proc/PID/cmdline is read under the lock of the address space: once a program, not once a request.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict

from guardfs.lanes import procfs
from guardfs.lanes.procfs import STAT_SIZE, Stat
from guardfs.lanes.writer import Known, Process, Writer

ATTEMPTS = 3  # a caller can be killed while it is looked at, and its id be given away
CAP_SYS_PTRACE = 19
SWEPT = 4  # threads that are checked for each new one


class _GoneError(Exception):
    """The thread ended, or never was, as far as /proc tells."""


class _Thread:
    """A thread that was seen: its descriptors and the last answer. text: see `ProcessTable._text`."""

    __slots__ = ("fd", "head", "tail", "text", "text_fd", "writer")

    def __init__(self, fd: int, text_fd: int, stat: Stat, text: bytes, writer: Writer) -> None:
        self.fd = fd
        self.text_fd = text_fd
        self.head = stat.head
        self.tail = stat.tail
        self.text = text
        self.writer = writer

    def close(self) -> None:
        os.close(self.fd)
        if self.text_fd >= 0:
            os.close(self.text_fd)


class ProcessTable:
    """Threads and processes seen of late. Not for use by several threads at once.

    limit: how many threads are held, with one descriptor each (two where the executable is hidden); processes
    likewise, without descriptors. The thread used longest ago is forgotten first.
    """

    def __init__(self, limit: int = 256) -> None:
        self._limit = max(1, limit)
        self._threads: OrderedDict[int, _Thread] = OrderedDict()
        self._processes: OrderedDict[tuple[int, int], tuple[object, Process]] = OrderedDict()
        self._outside: OrderedDict[tuple[int, int], Writer] = OrderedDict()
        self._environ_is_safe = procfs.kernel_release() >= (5, 7)
        self._looks = self._programs = self._evicted = self._gone = 0

    def writer(self, tid: int, uid: int, gid: int) -> Writer:
        """The writer behind a request of thread *tid* (in the guard's pid namespace) with fsuid *uid* and
        fsgid *gid*.

        As long as nothing about the thread changes, the same object every time. Never raises for what /proc
        says. Not to be called for FLUSH: see above.
        """
        thread = self._threads.get(tid)
        if thread is not None:
            try:
                data = os.pread(thread.fd, STAT_SIZE, 0)
            except OSError:
                data = b""
            if (
                data.endswith(thread.tail)
                and data[: data.rfind(b")") + 1] == thread.head
                and (thread.text_fd < 0 or self._text(thread.text_fd) == thread.text)
            ):
                self._threads.move_to_end(tid)
                writer = thread.writer
                if writer.uid == uid and writer.gid == gid:
                    return writer
                writer = thread.writer = _copy(writer, uid, gid)
                return writer
        if tid <= 0:
            return self._from_outside(uid, gid)
        return self._look(tid, uid, gid)

    def stats(self) -> dict[str, int]:
        """Counts: threads and processes held now; looks, programs, evicted and gone since the start."""
        return {
            "threads": len(self._threads),
            "processes": len(self._processes),
            "looks": self._looks,
            "programs": self._programs,
            "evicted": self._evicted,
            "gone": self._gone,
        }

    def close(self) -> None:
        """Closes every descriptor and forgets everything; the table can be used again."""
        while self._threads:
            self._threads.popitem()[1].close()
        self._processes.clear()
        self._outside.clear()

    def sees_all(self) -> bool:
        """Whether other users' executables can be read: CAP_SYS_PTRACE, in our own user namespace."""
        try:
            capabilities = procfs.status_field(procfs.read("/proc/self/status", 8192), b"CapEff")
        except (OSError, ValueError):
            return False
        return bool(int(capabilities, 16) >> CAP_SYS_PTRACE & 1)

    # ---- misses

    def _from_outside(self, uid: int, gid: int) -> Writer:
        writer = self._outside.get((uid, gid))
        if writer is None:
            writer = Writer(0, 0, False, "", uid, gid, "outside", None)
            self._outside[uid, gid] = writer
            if len(self._outside) > self._limit:
                self._outside.popitem(last=False)
        return writer

    def _look(self, tid: int, uid: int, gid: int) -> Writer:
        self._looks += 1
        self._sweep()
        before = self._threads.pop(tid, None)
        old = before.writer if before is not None else None
        if before is not None:
            before.close()
        for _ in range(ATTEMPTS):
            try:
                return self._hold(tid, uid, gid, old)
            except _GoneError:
                break
            except BlockingIOError:  # it changed while it was looked at
                continue
            except ValueError:
                break
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._threads:
                    break
                self._forget(len(self._threads) // 2 + 1)
        return self._unseen(tid, uid, gid)

    def _hold(self, tid: int, uid: int, gid: int, old: Writer | None) -> Writer:
        """Looks at a thread, holds it, answers. Raises _GoneError; BlockingIOError: look again."""
        try:
            fd = os.open(f"/proc/{tid}/task/{tid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise _GoneError from None
        text_fd = -1
        try:
            stat = procfs.stat_of(fd)
            tgid, known, process = self._resolve(tid, stat)
            text = b""
            if known == "hidden":
                text_fd = os.open(f"/proc/{tid}/task/{tid}/statm", os.O_RDONLY | os.O_CLOEXEC)
                text = self._text(text_fd)
            after = procfs.stat_of(fd)
            if after.head != stat.head or after.program != stat.program:
                raise BlockingIOError
            writer = Writer(tid, tgid, tid == tgid, stat.comm, uid, gid, known, process)
            if old is not None and _same(old, writer):
                writer = old
            if len(self._threads) >= self._limit:
                self._forget(1)
            self._threads[tid] = _Thread(fd, text_fd, after, text, writer)
            fd = text_fd = -1
            return writer
        except (FileNotFoundError, ProcessLookupError):
            raise _GoneError from None
        finally:
            if fd >= 0:
                os.close(fd)
            if text_fd >= 0:
                os.close(text_fd)

    def _resolve(self, tid: int, stat: Stat) -> tuple[int, Known, Process | None]:
        """(tgid, known, process) of a living thread."""
        tgid = int(procfs.status_field(procfs.read(f"/proc/{tid}/status", 8192), b"Tgid"))
        leader = stat if tgid == tid else procfs.parse_stat(procfs.read(f"/proc/{tgid}/stat", STAT_SIZE))
        held = self._processes.get((tgid, leader.start))
        if held is not None:
            self._processes.move_to_end((tgid, leader.start))
            # no address space: it is ending; no stack: it is amid execve(). What ran last is what writes.
            if held[0] == stat.program or (stat.vsize == 0 and not stat.kernel):
                return tgid, ("hidden" if held[1].exe is None else "ok"), held[1]
        exe, readable = (None, True) if stat.kernel else procfs.executable(tid)
        if held is not None and readable and exe is not None and stat.stack == 0:
            return tgid, "ok", held[1]
        known: Known = "kernel" if stat.kernel else "ok"
        if not readable:
            known = "hidden"
        elif exe is None and not stat.kernel:
            known = "exited"
        settled = stat.stack != 0 and exe is not None
        process = self._program(
            tid, tgid, leader, exe, read_args=settled or known == "hidden", claims=settled
        )
        identity: object = stat.program if settled else (process.args, stat.comm)
        if held is not None and not settled and held[0] == identity:
            return tgid, known, held[1]
        if settled or known in ("hidden", "kernel"):
            self._processes[tgid, leader.start] = (identity, process)
            if len(self._processes) > self._limit:
                self._processes.popitem(last=False)
        return tgid, known, process

    def _program(
        self, tid: int, tgid: int, leader: Stat, exe: str | None, *, read_args: bool, claims: bool
    ) -> Process:
        """All else about a program, through the calling thread: a leader that ended has no memory left."""
        self._programs += 1
        cgroup = procfs.cgroup_of(tid)
        return Process(
            tgid=tgid,
            start=leader.start,
            exe=exe,
            args=procfs.arguments(tid) if read_args else (),
            parents=procfs.parents(leader.ppid),
            cgroup=cgroup.path,
            container=cgroup.container,
            runtime=cgroup.runtime,
            pidns=procfs.pid_namespace(tid),
            environ_lane=procfs.claim(tid) if claims and self._environ_is_safe else None,
        )

    def _unseen(self, tid: int, uid: int, gid: int) -> Writer:
        """A thread that /proc does not show: gone, or alive but out of sight (hidepid)."""
        try:
            os.kill(tid, 0)
            alive = True
        except PermissionError:
            alive = True
        except OSError:
            alive = False
        self._gone += not alive
        return Writer(tid, 0, False, "", uid, gid, "hidden" if alive else "exited", None)

    def _sweep(self) -> None:
        """Lets go of a few of the threads used longest ago that have ended: more than one a new thread, so that those
        of scripts that start one program after the other do not pile up. Living ones are looked at again later."""
        for _ in range(min(SWEPT, len(self._threads))):
            tid, thread = next(iter(self._threads.items()))
            try:
                os.pread(thread.fd, 1, 0)
            except OSError:
                del self._threads[tid]
                thread.close()
            else:
                self._threads.move_to_end(tid)

    def _forget(self, count: int) -> None:
        for _ in range(count):
            if not self._threads:
                return
            self._threads.popitem(last=False)[1].close()
            self._evicted += 1

    @staticmethod
    def _text(fd: int) -> bytes:
        """Size of the program's code in pages (``statm``): the sign of an exec where addresses are hidden."""
        try:
            fields = os.pread(fd, 256, 0).split()
        except OSError:
            return b""
        return fields[3] if len(fields) > 3 else b""


def _copy(writer: Writer, uid: int, gid: int) -> Writer:
    return Writer(writer.tid, writer.tgid, writer.main, writer.comm, uid, gid, writer.known, writer.process)


def _same(old: Writer, new: Writer) -> bool:
    return (
        old.process is new.process
        and old.comm == new.comm
        and old.tgid == new.tgid
        and old.known == new.known
        and old.uid == new.uid
        and old.gid == new.gid
    )
