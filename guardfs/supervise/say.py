"""What the supervisor and the commands say to an operator, and exit statuses in words and numbers."""

from __future__ import annotations

import os
import signal


def say(text: str) -> None:
    """One line to the operator."""
    line = f"guardfs: {text}\n".encode("utf-8", "backslashreplace")
    try:
        os.write(2, line)  # past Python's buffer, which would fail once more at exit, and change its status
    except OSError:  # nobody listens; that must never keep a mount from its end
        pass


def ending(status: int) -> str:
    """How a process ended, by the return code that `subprocess` gives, in words."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def exit_status(returncode: int) -> int:
    """The status of a command as a shell tells it: 128 + n after signal n. returncode: that of `subprocess`."""
    return 128 - returncode if returncode < 0 else returncode
