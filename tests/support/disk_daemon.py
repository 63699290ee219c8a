"""The daemon on a disk that fails: the file $GUARDFS_TEST_FAULTS says which call, as `tests.support.faults.parse` has
it. What it says is in force from the next call on, counted from there; an empty file ends it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from guardfs.mount import daemon
from tests.support.faults import Fault, Faults, parse
from tests.support.faulty import FAULTS


class Switched(Faults):
    """Does what the file says."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._said = ""
        self.on = True

    def _due(self, full: str, args: tuple[Any, ...]) -> Fault | None:
        with open(self._path) as file:
            said = file.read()
        if said != self._said:
            self._said = said
            self.arm(parse(said))
        return super()._due(full, args)


if __name__ == "__main__":
    with Switched(os.environ[FAULTS]).installed():
        status = daemon.main()
    sys.stderr.flush()
    os._exit(status)
