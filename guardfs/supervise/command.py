"""The command that `guardfs run` starts: the agent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from guardfs.errors import GuardError
from guardfs.supervise.say import exit_status


class Command:
    """A running command. Raises GuardError where it cannot be started."""

    def __init__(self, words: Sequence[str]) -> None:
        try:
            # looked up again: this process's own working directory may lie under the mount by now
            self.process = subprocess.Popen(list(words), cwd=os.getcwd())
        except FileNotFoundError:
            raise GuardError(f"{words[0]}: command not found", "check the words after `--`") from None
        except OSError as error:
            raise GuardError(f"{words[0]}: {error.strerror}", "check the words after `--`") from None

    def ended(self) -> bool:
        """Whether it has ended; `status` is known then."""
        return self.process.poll() is not None

    @property
    def status(self) -> int:
        """Its exit status as a shell tells it."""
        return exit_status(self.process.returncode)

    def forward(self, number: int) -> None:
        """Pass a signal on to it."""
        if number == signal.SIGCHLD or self.ended():
            return
        if number in (signal.SIGINT, signal.SIGQUIT) and _from_terminal():
            return  # the terminal has sent it to the whole group already
        self.process.send_signal(number)


def _from_terminal() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
