"""A guard whose daemon can be made to fail: `python -m tests.support.faulty mount DIR ...`.

The supervisor is the real one; it starts $GUARDFS_TEST_DAEMON (`tests.support.faulty_daemon` by default) in the
place of the daemon.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from guardfs.cli.main import main
from guardfs.supervise import guard

FAULTS = "GUARDFS_TEST_FAULTS"
"""Environment variable: path of a file that holds ``WHERE WHAT`` (see `faulty_daemon`), or nothing."""

DAEMON = "GUARDFS_TEST_DAEMON"
"""Environment variable: the module that is run as the daemon."""


class _Started(subprocess.Popen[bytes]):
    def __init__(self, command: list[str], **more: Any) -> None:
        module = os.environ.get(DAEMON, "tests.support.faulty_daemon")
        super().__init__(
            [module if word == "guardfs.mount.daemon" else word for word in command],
            **more,
        )


class _Subprocess:
    Popen = _Started

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


if __name__ == "__main__":
    vars(guard)["subprocess"] = _Subprocess()
    main(sys.argv[1:])
