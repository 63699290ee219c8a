"""How far a command has read in logs, on standard error, where that is a terminal and the logs are large."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from guardfs.audit.read import files_of

_LARGE = 16 << 20
_STEP = 20_000


class Progress:
    """audits: logs, with their rotated files. Raises GuardError if one is not there."""

    def __init__(self, audits: Iterable[str]) -> None:
        self._size = 0
        for audit in audits:
            for file in files_of(audit):
                try:
                    self._size += os.stat(file).st_size
                except OSError:  # rotated away in between
                    pass
        self._shown = sys.stderr.isatty() and self._size > _LARGE
        self._read = 0
        self._lines = 0

    def step(self, size: int) -> None:
        """One line of *size* bytes was read."""
        self._read += size
        self._lines += 1
        if self._shown and self._lines % _STEP == 0:
            sys.stderr.write(f"\r{min(100, 100 * self._read // self._size):3d} %, {self._lines:,} lines")
            sys.stderr.flush()

    def end(self) -> None:
        """Clears the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
