"""A daemon that kills itself at a step of staging or rebasing. The file $GUARDFS_TEST_KILL says at which: ``ID COUNT``,
the COUNTth step since ID was first seen there; the steps are listed in the same file with ``.steps`` behind its name.
"""

from __future__ import annotations

import os
import signal
import sys

from guardfs.mount import daemon
from guardfs.state.branches import BranchStore

KILL = "GUARDFS_TEST_KILL"


class Steps:
    """Counts."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._id = ""
        self._count = 0

    def __call__(self, name: str) -> None:
        with open(self._path) as file:
            found, wanted = file.read().split()
        if found != self._id:
            self._id, self._count = found, 0
        self._count += 1
        fd = os.open(f"{self._path}.steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{found} {name}\n".encode())
        os.close(fd)
        if self._count == int(wanted):
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()


if __name__ == "__main__":
    STEPS = Steps(os.environ[KILL])
    real = BranchStore.__init__

    def init(store: BranchStore, *args: str | int) -> None:
        """With a step that counts."""
        real(store, *args)  # type: ignore[arg-type]
        store.step = STEPS

    BranchStore.__init__ = init  # type: ignore[assignment,method-assign]
    status = daemon.main()
    sys.stderr.flush()
    os._exit(status)
