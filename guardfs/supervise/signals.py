"""Signals as numbers to wait for, instead of handlers that run anywhere."""

from __future__ import annotations

import os
import signal

_LEFT_ALONE = frozenset(
    {
        # cannot be caught
        signal.SIGKILL,
        signal.SIGSTOP,
        # say that this process itself is broken; systemd's watchdog sends SIGABRT
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGXCPU,
        signal.SIGXFSZ,
        signal.SIGPIPE,
        # job control: the terminal stops the whole group, command and supervisor; the daemon goes on
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    }
)

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""What asks a process to end."""


class Signals:
    """The signals of this process, from now on until it ends."""

    WANTED = frozenset(signal.valid_signals()) - _LEFT_ALONE

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
        """The signals that have come, in order; SIGCHLD, which only wakes, is left out."""
        try:
            return [number for number in os.read(self._read, 512) if number != signal.SIGCHLD]
        except BlockingIOError:
            return []
