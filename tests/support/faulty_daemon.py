"""The daemon with an error built in, where and when the file $GUARDFS_TEST_FAULTS says: ``WHERE WHAT``.

WHERE: ``before`` or ``after`` the operation WHAT has acted; ``writer`` or ``emit``: when it is told to the
log; ``work``: in the thread of an operation that takes long.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from guardfs.audit.log import AuditLog
from guardfs.lanes.process import ProcessTable
from guardfs.mount import daemon
from guardfs.mount.backing import Backing
from guardfs.mount.filesystem import OPERATIONS, FileSystem
from tests.support.faulty import FAULTS


class InjectedError(RuntimeError):
    """No OSError: an error of the guard's own."""


def fault(where: str, what: str) -> None:
    """Raise if the file asks for it now."""
    with open(os.environ[FAULTS]) as file:
        wanted = file.read().split()
    if wanted == [where, what] or wanted == [where, "*"]:
        raise InjectedError(f"{where} {what}")


def wrap(owner: type, name: str, before: str, after: str) -> None:
    """Put faults around one method."""
    real: Callable[..., Any] = getattr(owner, name)

    def method(self: Any, *args: Any, **more: Any) -> Any:
        fault(before, name)
        result = real(self, *args, **more)
        fault(after, name)
        return result

    setattr(owner, name, method)


for _name in [*OPERATIONS, "forget"]:
    if hasattr(FileSystem, _name):
        wrap(FileSystem, _name, "before", "after")
wrap(ProcessTable, "writer", "writer", "-")
wrap(AuditLog, "emit", "emit", "-")


def _in_thread(name: str) -> None:
    real = getattr(Backing, name)

    def call(*args: Any) -> Any:
        fault("work", name)
        return real(*args)

    setattr(Backing, name, staticmethod(call))


for _name in ("fsync", "fdatasync"):
    _in_thread(_name)

if __name__ == "__main__":
    status = daemon.main()
    sys.stderr.flush()
    os._exit(status)
