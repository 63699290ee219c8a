"""`guardfs serve` as a child process, for the length of a test."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.support.guard import GUARDFS, environment
from tests.support.waiting import wait_for

ANYWHERE = "127.0.0.1:0"
"""Any port that is free; the server says which."""


class Server:
    """What is served, by the addresses that it has said: ``metrics`` and ``page``, without a path."""

    def __init__(self, output: Path, *words: object) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [*GUARDFS, "serve", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment(),
                cwd="/",
            )

    def said(self) -> str:
        return self.output.read_text()

    def url(self, what: str) -> str:
        """``http://HOST:PORT`` of ``metrics`` or ``page``, once it listens there."""

        def look() -> str:
            assert self.process.poll() is None, self.said()
            found = re.search(rf"\b{what} on (http://[^/\s]+)", self.said())
            return found[1] if found else ""

        return wait_for(look, f"the address of {what}")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def destroy(self) -> None:
        """End it whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
