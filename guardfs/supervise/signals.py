"""Signals as numbers to wait for, instead of handlers that run anywhere."""

from __future__ import annotations

import os
import signal


class Signals:
    """The signals of this process, from now on until it ends."""

    WANTED = (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCHLD,
    )

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self.WANTED:
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read

    def ignore(self) -> None:
        """From now on a signal changes nothing: the end is near, and its exit status is known."""
        for number in self.WANTED:
            if number != signal.SIGCHLD:
                signal.signal(number, signal.SIG_IGN)

    def take(self) -> list[int]:
        """The signals that have come, in order."""
        try:
            return list(os.read(self._read, 512))
        except BlockingIOError:
            return []
