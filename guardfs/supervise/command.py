"""The command that `guardfs run` starts: the agent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

import msgspec

from guardfs.errors import GuardError
from guardfs.mount import libc
from guardfs.supervise.say import exit_status, say
from guardfs.supervise.user import User

_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)


class Start(msgspec.Struct, frozen=True):
    """What to start. user: as whom; None for the guard's own user. new_privileges: set-user-ID programs and file
    capabilities work for it."""

    words: Sequence[str]
    user: User | None = None
    new_privileges: bool = False


class Command:
    """A running command. Raises GuardError where it cannot be started."""

    def __init__(self, start: Start) -> None:
        name = start.words[0]
        mend = "check the words after `--`"

        def prepare() -> None:
            # in the child, before the program; no other thread is there that could hold a lock
            try:
                if start.user is not None:
                    start.user.become()
                if not start.new_privileges:
                    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
            except OSError as error:
                say(f"{name}: cannot be run as asked: {error.strerror}")
                os._exit(GuardError.exit_status)

        environment = None if start.user is None else start.user.environment(os.environ)
        try:
            # looked up again: this process's own working directory may lie under the mount by now
            self.process = subprocess.Popen(
                list(start.words), cwd=os.getcwd(), env=environment, preexec_fn=prepare
            )
        except FileNotFoundError:
            raise GuardError(f"{name}: command not found", mend) from None
        except OSError as error:
            raise GuardError(f"{name}: {error.strerror}", mend) from None
        self._told = False

    def ended(self) -> bool:
        """Whether it has ended; `status` is known then."""
        return self.process.poll() is not None

    @property
    def status(self) -> int:
        """Its exit status as a shell tells it."""
        return exit_status(self.process.returncode)

    def forward(self, number: int) -> None:
        """Pass a signal on to it."""
        if self.ended() or (number in _FROM_TERMINAL and _from_terminal()):
            return  # the terminal has sent it to the whole group already
        try:
            self.process.send_signal(number)
        except PermissionError:  # it has become another user by itself
            if not self._told:
                say(f"the command {self.process.pid} cannot be signalled: no CAP_KILL")
            self._told = True


def _from_terminal() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
