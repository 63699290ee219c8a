"""A daemon that kills itself at a step of staging or rebasing. The file $GUARDFS_TEST_KILL says at which: ``ID COUNT``,
the COUNTth step since ID was first seen there, or the first one of that name, or the nth of it (``NAME:N``); the steps
are listed in the same file with ``.steps`` behind its name.
It kills itself once for an ID, so that a daemon that takes over lives. At a rename it does so a bit later, while a
thread of its own waits for an answer, so that the process does not end.

With $GUARDFS_TEST_REQUESTS, steps are also those of each request: before it is acted upon, behind that, when its nodes
and views are kept, before the answer, behind that, and when fences and log know of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections import Counter

from guardfs.mount import daemon
from guardfs.mount.memory.keeper import Keeper
from guardfs.mount.memory.requests import OPERATIONS, Running
from guardfs.mount.operations.core import Core
from guardfs.state.branches import BranchStore

KILL = "GUARDFS_TEST_KILL"
REQUESTS = "GUARDFS_TEST_REQUESTS"


class Steps:
    """Counts."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._id = ""
        self._count = 0
        self._names: Counter[str] = Counter()
        self._hangs = False

    def __call__(self, name: str) -> None:
        with open(self._path) as file:
            found, wanted = file.read().split()
        if found != self._id:
            self._id, self._count, self._names = found, 0, Counter()
        self._count += 1
        fd = os.open(f"{self._path}.steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{found} {name}\n".encode())
        os.close(fd)
        self._names[name] += 1
        if wanted in (str(self._count), name, f"{name}:{self._names[name]}"):
            with open(f"{self._path}.done", "w") as file:
                file.write(f"{found} 0")
            os.rename(f"{self._path}.done", self._path)
            if name == "rename.begun":
                self._hangs = True
                threading.Thread(target=self._hang).start()
                return
        elif not self._hangs or name != "setxattr.begun":
            return
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def _hang(self) -> None:
        """Wait for this process's own answer, and so keep it from ending when it is killed."""
        sessions = os.path.join(os.path.dirname(self._path), "sessions")
        with contextlib.suppress(OSError):
            os.setxattr(sessions, "user.guardfs.control", b"no request")


def of_requests(step: Steps) -> None:
    """Have the steps of requests counted, too."""
    begin, done, settle, keep = Running.begin, Running.done, Core.settle, Keeper.done

    def stepping_begin(running: Running, op: int, unique: int, *before: int) -> None:
        begin(running, op, unique, *before)
        step(f"{OPERATIONS[op]}.begun")

    def stepping_keep(keeper: Keeper, result: int) -> None:
        if keeper.running.began:
            step(f"{OPERATIONS[keeper.running._state >> 8]}.acted")
        keep(keeper, result)

    def stepping_done(running: Running, result: int) -> None:
        step("request.kept")
        done(running, result)
        step("request.noted")

    def stepping_settle(core: Core) -> None:
        if core.noted and core.keeper is not None:
            step("request.answered")
        settle(core)
        step("request.settled")

    Running.begin, Running.done = stepping_begin, stepping_done  # type: ignore[assignment,method-assign]
    Keeper.done = stepping_keep  # type: ignore[assignment,method-assign]
    Core.settle = stepping_settle  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    STEPS = Steps(os.environ[KILL])
    real = BranchStore.__init__

    def init(store: BranchStore, *args: str | int) -> None:
        """With a step that counts."""
        real(store, *args)  # type: ignore[arg-type]
        store.step = STEPS

    BranchStore.__init__ = init  # type: ignore[assignment,method-assign]
    if REQUESTS in os.environ:
        of_requests(STEPS)
    status = daemon.main()
    sys.stderr.flush()
    os._exit(status)
