"""Holds signals, the command and the guards in one loop.

The supervisor does little, so that it has little to die of. Nothing in it blocks: guards take their time in steps
(`guard`), and the loop waits for signals, for what daemons say, and for the next step that is due.
"""

from __future__ import annotations

import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from guardfs.errors import GuardError
from guardfs.supervise.command import Command
from guardfs.supervise.guard import Guard, Phase, Settings
from guardfs.supervise.notify import notify
from guardfs.supervise.say import say
from guardfs.supervise.signals import Signals

_CHILD_SECONDS = 5.0
"""What a child of the supervisor's own gets to end by itself."""


class Child:
    """A process of the supervisor's own that is neither a daemon nor the command. ended: called with the return code
    when it has ended while the supervisor runs.
    """

    def __init__(self, process: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
        self.process = process
        self.ended = ended


class Supervisor:
    """The guards of some directories, and perhaps a command. children: further processes, told to end with SIGTERM
    before the guards are taken off.
    """

    def __init__(self, settings: Sequence[Settings], signals: Signals) -> None:
        self.signals = signals
        self.guards = [Guard(each) for each in settings]
        self.command: Command | None = None
        self.children: list[Child] = []

    def start(self) -> None:
        """Mount, and return when every directory answers. Raises GuardError; then nothing is left mounted."""
        try:
            for guard in self.guards:
                guard.begin()
            while any(guard.phase is Phase.STARTING for guard in self.guards):
                self._turn()
                if {signal.SIGTERM, signal.SIGINT}.intersection(self.signals.take()):
                    raise GuardError("interrupted at start", "start again")
        except BaseException:
            self.stop()
            raise
        notify("READY=1")

    def run(self, words: Sequence[str]) -> None:
        """Start the command. Raises GuardError; then nothing is left mounted."""
        try:
            self.command = Command(words)
        except BaseException:
            self.stop()
            raise

    def attend(self) -> int:
        """Wait until the command, the operator or the daemons' end ends it; the exit status. The mounts are gone
        afterwards.
        """
        try:
            self._attend()
            status = self.stop()
        finally:
            self.signals.ignore()
        return (self.command.status if self.command is not None else 0) or status

    def _attend(self) -> None:
        while True:
            self._turn()
            for number in self.signals.take():
                if self.command is not None:
                    self.command.forward(number)
                elif number == signal.SIGHUP:
                    for guard in self.guards:
                        guard.reload()
                elif number in (signal.SIGTERM, signal.SIGINT):
                    return
            if self.command is not None and self.command.ended():
                return
            if self.command is None and not self._guarded():
                return

    def _guarded(self) -> bool:
        return any(guard.phase is not Phase.GONE for guard in self.guards)

    def _turn(self) -> None:
        """Wait until something happens, and let every guard act on it."""
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        due = [guard.due for guard in self.guards if guard.due is not None]
        for guard in self.guards:
            if guard.control is not None:
                poll.register(guard.control, select.POLLIN)
        poll.poll(max(0.0, min(due) - time.monotonic()) * 1000 if due else None)
        guarded = self._guarded()
        for guard in self.guards:
            guard.step()
        if guarded and not self._guarded() and self.command is not None and not self.command.ended():
            say("the command goes on unguarded")
        for child in list(self.children):
            status = child.process.poll()
            if status is not None:
                self.children.remove(child)
                child.ended(status)

    # ---- the end

    def stop(self) -> int:
        """Take all guards off, each at a quiet moment; a further SIGTERM or SIGINT does not wait for one. 1 if that
        failed somewhere, or a guard was lost before.
        """
        notify("STOPPING=1")
        children = [child.process for child in self.children]
        self.children.clear()
        for child in children:
            child.terminate()
        for guard in self.guards:
            guard.leave()
        while self._guarded():
            self._turn()
            if {signal.SIGTERM, signal.SIGINT}.intersection(self.signals.take()):
                for guard in self.guards:
                    guard.impatient = True
        for child in children:
            try:
                child.wait(_CHILD_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return max(guard.status for guard in self.guards)
