"""A daemon that mistakes the caller of reads and writes, as one on an unknown pyfuse3 would; see `test_selfcheck`."""

from __future__ import annotations

import os
import sys

from guardfs.mount import daemon
from guardfs.mount.caller import Caller, caller_of
from guardfs.mount.operations import core


def mistaken(container: object) -> Caller:
    """The caller, with another thread's id."""
    caller = caller_of(container)
    return caller._replace(pid=caller.pid + 1)


if __name__ == "__main__":
    core.caller_of = mistaken  # type: ignore[attr-defined]
    status = daemon.main()
    sys.stderr.flush()
    os._exit(status)
