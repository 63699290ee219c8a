"""Fencing tokens over restarts: one number in the state directory that no token ever given out has passed.

Numbers are reserved ahead, so that a fence never waits for the disk, and no token is given twice whatever dies when:
a guard begins above all that was reserved before it.
"""

from __future__ import annotations

import logging
import threading

from guardfs.errors import GuardError
from guardfs.state.directory import StateDirectory

log = logging.getLogger("guardfs.state")

NAME = "tokens"
BLOCK = 10_000
"""Tokens reserved at a time. A restart costs up to so many numbers, of which there are enough."""


class TokenStore:
    """floor: no token up to this one may be given again. Raises GuardError for a file that is no number."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self.floor = self._read()
        self._reserved = self.floor
        self._busy = False

    def _read(self) -> int:
        name = self._state.file(NAME)
        try:
            with open(name, "rb") as file:
                return int(file.read(32))
        except FileNotFoundError:
            return 0
        except ValueError:
            raise GuardError(f"{name}: holds no number", "put back what was there, or remove it") from None

    def start(self) -> None:
        """Reserve the first tokens. A state directory that cannot be written is told, and the guard goes on."""
        self._reserve(self.floor + BLOCK)

    def given(self, token: int) -> None:
        """*token* was given out. Reserves more in a thread before the reserved ones run out; never waits."""
        if token > self._reserved - BLOCK // 2 and not self._busy:
            self._busy = True
            threading.Thread(target=self._reserve, args=(token + BLOCK,), daemon=True).start()

    def _reserve(self, upto: int) -> None:
        try:
            self._state.write(NAME, b"%d\n" % upto, sync=True)
            self._reserved = upto
        except OSError as error:
            log.warning(
                "%s: %s; after a restart, fencing tokens may be given twice",
                self._state.file(NAME),
                error.strerror,
            )
            self._reserved = upto  # tried again with the next block
        finally:
            self._busy = False
