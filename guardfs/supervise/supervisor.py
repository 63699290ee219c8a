"""Holds signals, the command and the guards in one loop.

The supervisor does little, so that it has little to die of. Nothing in it blocks: guards take their time in steps
(`guard`), and the loop waits for signals, for what daemons say, and for the next step that is due.
"""

from __future__ import annotations

import select
import signal
import subprocess
import time
from collections.abc import Sequence

from guardfs.errors import GuardError
from guardfs.mount import capabilities, device
from guardfs.serve.plan import Known, Plan
from guardfs.supervise import orphans
from guardfs.supervise.command import Command, Start
from guardfs.supervise.finding import Finder
from guardfs.supervise.guard import Guard, Phase, Settings
from guardfs.supervise.notify import notify, watchdog
from guardfs.supervise.observer import Observer
from guardfs.supervise.say import say
from guardfs.supervise.signals import ENDING, Signals

_OTHERS_SECONDS = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))
"""What the rest of a container gets to end by itself, and then to be gone. Docker's patience is 10 s in all."""


_OTHERS_LOOK = 0.05
"""Not every end wakes PID 1: only those of its own children do."""


class StartInterruptedError(GuardError):
    """A signal came before everything was up. The exit status is a shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted at start by {signal.Signals(number).name}", "start again")
        self.exit_status = 128 + number


class Supervisor:
    """The guards of some directories, and perhaps a command. observer: what serves metrics and the page of them, if
    that is wanted. finder: finds further directories to guard. hint: how to end a guard, with {} for its directory;
    said of each.
    """

    def __init__(self, settings: Sequence[Settings], signals: Signals, finder: Finder | None = None) -> None:
        self.signals = signals
        self.guards = [Guard(each) for each in settings]
        self.finder = finder
        self.hint = ""
        self._late: list[Guard] = []  # those of the finder that do not serve yet
        self._sign = watchdog()
        self._sign_due = 0.0
        self.command: Command | None = None
        self._closing = False
        self.observer: Observer | None = None
        self._first = orphans.is_first()
        orphans.adopt()

    def start(self) -> None:
        """Mount, and return when every directory answers. Raises GuardError; then nothing is left mounted."""
        try:
            for guard in self.guards:
                guard.begin()
            while any(guard.phase is Phase.STARTING for guard in self.guards):
                for number in self._turn():
                    if number in ENDING:
                        raise StartInterruptedError(number)
        except BaseException:
            self.stop()
            raise
        for guard in self.guards:
            self._announce(guard)
        notify(f"READY=1\n{self._summary()}")

    def run(self, start: Start) -> None:
        """Start the command. Raises GuardError; then nothing is left mounted."""
        try:
            self.command = Command(start)
        except BaseException:
            self.stop()
            raise

    def attend(self) -> int:
        """Wait until the command, the operator or the daemons' end ends it; the exit status. The mounts are gone
        afterwards.
        """
        capabilities.keep(capabilities.SUPERVISOR.values())  # the command has had its own from before this
        try:
            self._attend()
            if self.command is not None and self._first:
                self._end_others()
            status = self.stop()
        finally:
            self.signals.ignore()
        return (self.command.status if self.command is not None else 0) or status

    def _attend(self) -> None:
        while True:
            for number in self._turn():
                if self.command is not None:
                    self.command.forward(number)
                elif number == signal.SIGHUP:
                    for guard in self.guards:
                        guard.reload()
                elif number in (signal.SIGTERM, signal.SIGINT):
                    return
            if self.command is not None and self.command.ended():
                return
            if self.command is None and self.finder is None and not self._guarded():
                return

    def _guarded(self) -> bool:
        return any(guard.phase is not Phase.GONE for guard in self.guards)

    def _own(self) -> list[subprocess.Popen[bytes]]:
        """Every process that the supervisor has started and asks about: nobody else is to wait for these."""
        found = [process for guard in self.guards for process in guard.processes()]
        if self.observer is not None and self.observer.process is not None:
            found.append(self.observer.process)
        return found if self.command is None else [*found, self.command.process]

    def _turn(self, until: float | None = None) -> list[int]:
        """Wait until something happens, but not past *until* on the monotonic clock; let every guard act on it. The
        signals that have come by then; one that comes later, be it that a child has ended, wakes the next turn."""
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        due = [guard.due for guard in self.guards if guard.due is not None]
        if until is not None:
            due.append(until)
        if self.observer is not None and self.observer.due is not None:
            due.append(self.observer.due)
        if self.finder is not None:
            due.append(self.finder.due)
        if self._sign is not None:
            due.append(self._sign_due)
        for guard in self.guards:
            if guard.control is not None:
                poll.register(guard.control, select.POLLIN)
        poll.poll(max(0.0, min(due) - time.monotonic()) * 1000 if due else None)
        came = self.signals.take()  # before the look at who has ended: a later end must not be taken for seen
        orphans.reap(self._own())
        guarded = self._guarded()
        for guard in list(self.guards):
            self._step(guard)
        if self.finder is not None and time.monotonic() >= self.finder.due:
            self._find(self.finder)
        if self._sign is not None and time.monotonic() >= self._sign_due:
            self._sign_due = time.monotonic() + self._sign
            notify("WATCHDOG=1")
        forever = self.finder is None and guarded and not self._guarded()
        if self.command is not None and not self.command.ended():
            if any(guard.succession.closed for guard in self.guards):
                self._close()
            elif forever:
                say("the command goes on unguarded")
        if self.observer is not None:
            self.observer.step(self._known())
        return came

    def observe(self, plan: Plan) -> None:
        """Serve metrics and the page of the guards, whatever becomes of that."""
        self.observer = Observer(plan)
        self.observer.step(self._known())

    def _known(self) -> list[Known]:
        """Also those that are gone: whoever watches must see that."""
        return [Known(each.sessions, each.state, each.audit) for each in (g.settings for g in self.guards)]

    def _close(self) -> None:
        """A directory is closed for good: the command cannot work any more, and is told to end."""
        if self.command is not None and not self._closing:
            self._closing = True
            say("the command is told to end")
            self.command.forward(signal.SIGTERM)

    def _step(self, guard: Guard) -> None:
        if guard not in self._late or self.finder is None:
            guard.step()
            return
        try:
            guard.step()
        except Exception as error:  # whatever it is, the others go on
            self._late.remove(guard)
            self.guards.remove(guard)
            self.finder.failed(guard.settings.sessions, error)
            return
        if guard.phase is Phase.SERVING:
            self._late.remove(guard)
            self._announce(guard)
            notify(self._summary())

    def _find(self, finder: Finder) -> None:
        """Guard what has appeared, let go of what has got another name."""
        table = device.mounts()
        for guard in list(self.guards):
            path = guard.settings.sessions
            if guard.phase is Phase.SERVING and device.place_of(guard.device, path, table) not in (
                path,
                None,
            ):
                say(f"{path} has been moved")
                guard.leave()
            elif guard.phase is Phase.GONE and guard.status == 0 and finder.found(path):
                self.guards.remove(guard)
                finder.left(path)
                notify(self._summary())
        for settings in finder.look({guard.settings.sessions for guard in self.guards}):
            guard = Guard(settings)
            self.guards.append(guard)
            self._late.append(guard)
            guard.begin()

    def _announce(self, guard: Guard) -> None:
        settings = guard.settings
        what = f"guarding {settings.sessions}, policy {settings.policy.source}, log {settings.audit}"
        say(what + self.hint.replace("{}", settings.sessions))

    def _summary(self) -> str:
        number = sum(guard.phase is Phase.SERVING for guard in self.guards)
        return f"STATUS=guarding {number} {'directory' if number == 1 else 'directories'}"

    # ---- the end

    def _end_others(self) -> None:
        """As PID 1, after the command: what else is in the container lets go of the mounts, or is killed; the kernel
        would kill it anyway, and the daemons at the same moment. No turn can be in flight then.
        """
        self.finder = None

        def others() -> list[int]:
            return orphans.others({process.pid for process in self._own()})

        for number, seconds in _OTHERS_SECONDS:
            orphans.signal_all(others(), number)
            deadline = time.monotonic() + seconds
            while others() and time.monotonic() < deadline:
                if ENDING.intersection(self._turn(time.monotonic() + _OTHERS_LOOK)):
                    break
        if not others():
            for guard in self.guards:
                guard.alone = True

    def stop(self) -> int:
        """Take all guards off, each at a quiet moment; a further SIGTERM or SIGINT does not wait for one. 1 if that
        failed somewhere, or a guard was lost before.
        """
        notify("STOPPING=1\nSTATUS=taking the guards off, at a quiet moment")
        self.finder = None
        if self.observer is not None:
            self.observer.end()
        for guard in self.guards:
            if self.command is not None:
                guard.open_again()
            guard.leave()
        while self._guarded():
            if {signal.SIGTERM, signal.SIGINT}.intersection(self._turn()):
                for guard in self.guards:
                    guard.impatient = True
        if self.observer is not None:
            self.observer.wait()
        return max((guard.status for guard in self.guards), default=0)
