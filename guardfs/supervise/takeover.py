"""What a guard does when its daemon dies or hangs: a new one takes over the same connection.

The supervisor holds what a daemon needs to go on: /dev/fuse, the directory below, and the memory in which each daemon
leaves what the next one must know (`guardfs.mount.memory`). Where the kernel does not send unanswered requests again,
or nothing can be read of the memory, the dead mount is detached and a new one made. Too many deaths in a row are the
end.

A daemon hangs when it says nothing for `watchdog` seconds, or answers nothing for as long while requests wait. One
that sleeps in the kernel, waiting for the disk, is not killed for that: it could not die, and might still write.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Literal

import msgspec

from guardfs.errors import GuardError
from guardfs.lanes import procfs
from guardfs.mount import device
from guardfs.mount.config import Message, TakeOver, send
from guardfs.supervise.say import ending, say

if TYPE_CHECKING:
    from guardfs.supervise.guard import Guard, Steps

OnFailure = Literal["open", "closed"]

MAX_DEATHS = 5
DEATHS_SECONDS = 60.0
"""So many deaths within so many seconds are too many: whatever kills the daemon will kill the next one, too. The first
can be chosen."""

WATCHDOG = 10.0
"""Seconds without an answer. An agent's own patience with its session lock is longer (OpenClaw: 60 s)."""

MIN_WATCHDOG = 0.5
"""A busy machine lets a daemon wait for longer than less."""

_BEATS = 4  # signs of life, and looks for them, in the time of the watchdog
_DYING_SECONDS = 5.0
_GRACE_SECONDS = 0.3
_LOOK_SECONDS = 0.02
_HAND_SECONDS = 20.0
"""What a daemon that was asked to hand over gets to finish what it has begun."""


class Care(msgspec.Struct, frozen=True):
    """How a guard deals with its daemon's death. watchdog: seconds, 0 to have none. max_deaths: within a minute; so
    many are too many."""

    watchdog: float = WATCHDOG
    on_failure: OnFailure = "open"
    max_deaths: int = MAX_DEATHS


class Succession:
    """The daemons of one guard, one after the other. number: take-overs so far. closed: nobody gets at the
    directory, and the command is to be stopped. giving_up: no more daemons are started."""

    def __init__(self, guard: Guard, care: Care) -> None:
        self._guard = guard
        self._care = care
        self.memory = -1
        self.held: tuple[int, int] = (-1, -1)
        self.number = 0
        self.closed = self.giving_up = False
        self._deaths: deque[float] = deque(maxlen=care.max_deaths)
        self._cause = ""
        self._since = 0
        self._handing = 0.0  # on the monotonic clock: when a daemon was asked to hand over
        self._alive = 0.0
        self._served = -1
        self._moved = 0.0
        self._looked = 0.0
        self._excused = False
        self._dying = 0.0  # since when the first thread is gone, and others are not

    # ---- what daemons inherit

    def open(self) -> None:
        """Make what is kept for later daemons of a new mount."""
        self.close()
        self.memory = os.memfd_create("guardfs-memory", os.MFD_CLOEXEC)
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.held = ends[0].detach(), ends[1].detach()

    def close(self) -> None:
        """Let go of it."""
        for fd in (self.memory, *self.held):
            if fd >= 0:
                os.close(fd)
        self.memory, self.held = -1, (-1, -1)

    @property
    def fds(self) -> list[int]:
        """Descriptors for the next daemon."""
        return [fd for fd in (self.memory, *self.held) if fd >= 0]

    @property
    def heartbeat(self) -> float:
        """Seconds between two signs of life of a daemon."""
        return self._care.watchdog / _BEATS

    # ---- while it serves

    def message(self, message: Message) -> None:
        """What the daemon says."""
        now = time.monotonic()
        if message.kind == "alive":
            self._alive = now
            served = int(message.what)
            if served != self._served:
                self._served, self._moved = served, now
        elif message.kind == "busy":
            self._alive = self._moved = now + int(message.what)
        elif message.kind == "upgrade" and not self._handing:
            self._handing = now
            control = self._guard.control
            try:
                assert control is not None
                send(control.fileno(), Message("hand"))
            except (OSError, AssertionError):
                pass  # it is dead, which comes to the same

    def begun(self) -> None:
        """A daemon serves from now on."""
        self._alive = self._moved = self._looked = time.monotonic()
        self._served, self._excused, self._handing, self._dying = -1, False, 0.0, 0.0

    def dead(self) -> bool:
        """Whether the daemon can do nothing any more. One whose first thread is gone gets some time to end whole."""
        guard = self._guard
        assert guard.daemon is not None
        if guard.daemon.poll() is not None:
            return True
        if not gone(guard.daemon):
            self._dying = 0.0
            return False
        now = time.monotonic()
        self._dying = self._dying or now
        guard.due = now + _LOOK_SECONDS
        return now - self._dying > _GRACE_SECONDS

    def look(self) -> float | None:
        """Kill the daemon if it hangs. When to look again, on the monotonic clock; None: there is no watchdog."""
        watchdog = self._care.watchdog
        if not watchdog:
            return None
        now, daemon = time.monotonic(), self._guard.daemon
        wait = now + watchdog / _BEATS
        if now - self._looked > watchdog / 2:  # the supervisor itself was stopped: nobody is to blame
            self._alive = self._moved = now
        self._looked = now
        if not self._pending():
            self._moved = now
        silent = now - self._alive > watchdog or now - self._moved > watchdog
        if self._handing:
            silent = now - self._handing > _HAND_SECONDS
        if daemon is None or not silent:
            self._excused = False
            return wait
        state = state_of(daemon.pid)
        if state == "D":
            if not self._excused:
                self._excused = True
                say(f"the daemon {daemon.pid} has not answered for {watchdog:g} s: it waits for the disk")
            return wait
        self._cause = f"no answer for {watchdog:g} s"
        self._since = time.time_ns()
        say(f"the daemon {daemon.pid} has not answered for {watchdog:g} s, and is killed")
        daemon.kill()
        return wait

    def _pending(self) -> bool:
        """Whether requests wait to be read."""
        poll = select.poll()
        try:
            poll.register(self._guard.fuse, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return False

    # ---- its end

    def ended(self) -> Steps:
        """The daemon has ended: start another one, or give up. The phase says afterwards what became of it."""
        from guardfs.supervise.guard import Phase

        guard = self._guard
        assert guard.daemon is not None
        path, status = guard.settings.sessions, guard.daemon.poll()
        if not device.is_top(path, guard.device):
            say(f"{path}: unmounted" if status == 0 else f"{path} was unmounted")
            return guard.gone()
        orderly = bool(self._handing) and status == 0
        since, cause = self._since or time.time_ns(), self._cause
        self._since, self._cause = 0, ""
        if orderly:
            cause = "upgrade"
        else:
            how = "a kill (a thread of it hangs still)" if status is None else ending(status)
            cause = cause or how
            say(f"the daemon ended with {how}")
            self._deaths.append(time.monotonic())
        anew = not guard.can_resend
        if anew:
            say(
                "this kernel does not send unanswered requests again: they fail, and the directory is mounted anew"
            )
        while True:
            if self._too_many():
                yield from self._give_up(cause)
                return
            if not device.is_top(path, guard.device):
                say(f"{path} was unmounted")
                return guard.gone()
            self.number += 1
            began = time.monotonic()
            try:
                if anew:
                    self._mount_anew()
                guard.spawn(TakeOver(self.number, cause, since, orderly, anew))
                yield from guard.await_ready()
                break
            except GuardError as error:
                say(str(error))
                anew = anew or guard.refused
                yield from self._bury()
                self._deaths.append(time.monotonic())
            except OSError as error:
                say(f"{path}: {error}")
                self._deaths.append(time.monotonic())
            yield max(0.0, min(1.0, began + 0.2 - time.monotonic()))
        took = (time.time_ns() - since) / 1e6
        say(
            f"{path}: {'mounted anew' if anew else 'taken over'} by the daemon {guard.daemon.pid} "
            f"after {took:.0f} ms ({cause})"
        )
        self.begun()
        guard.phase = Phase.SERVING

    def _too_many(self) -> bool:
        deaths = self._deaths
        return len(deaths) == deaths.maxlen and deaths[-1] - deaths[0] < DEATHS_SECONDS

    def _bury(self) -> Steps:
        """A daemon that did not come up ends."""
        daemon = self._guard.daemon
        if daemon is None:
            return
        daemon.kill()
        deadline = time.monotonic() + _DYING_SECONDS
        while not gone(daemon) and time.monotonic() < deadline:
            yield _LOOK_SECONDS

    def _mount_anew(self) -> None:
        guard = self._guard
        guard.close_connection()
        device.abort(guard.settings.sessions, guard.device, force=True)
        self.open()
        guard.connect()

    def _give_up(self, cause: str) -> Steps:
        guard, path = self._guard, self._guard.settings.sessions
        self.giving_up = True
        deaths = len(self._deaths)
        guard.status = 1
        if self._care.on_failure == "closed":
            self.closed = True
            say(
                f"{_daemons(deaths)} died within {DEATHS_SECONDS:g} s, the last one of {cause}. "
                f"--on-failure closed: nobody gets at {path} any more"
            )
            guard.close_connection()  # every call on it fails from now on
            return guard.gone()
        say(
            f"{_daemons(deaths)} died within {DEATHS_SECONDS:g} s, the last one of {cause}. "
            f"{path} IS UNGUARDED from now on, its files are intact"
        )
        guard.close_connection()
        device.abort(path, guard.device, force=True)
        settings = guard.settings
        guard.let_go()
        # what waits on branches goes into the files, and the log is told, by a process that may fail
        words = [path, settings.state, settings.audit, cause, str(deaths)]
        command = [sys.executable, "-P", "-m", "guardfs.supervise.abandon", *words]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True)
        guard.last = child
        deadline = time.monotonic() + 60.0
        while child.poll() is None and time.monotonic() < deadline:
            yield _LOOK_SECONDS
        if child.poll() != 0:
            say(
                f"{path}: what waits on branches is still there; `guardfs recover {path}` brings it into the files"
            )
        guard.gone()


def _daemons(count: int) -> str:
    return "a daemon has" if count == 1 else f"{count} daemons have"


def state_of(pid: int) -> str:
    """The state of a process's first thread, as proc(5) calls it; "" if there is none."""
    try:
        data = procfs.read(f"/proc/{pid}/stat", procfs.STAT_SIZE)
        return chr(data[data.rindex(b")") + 2])
    except (OSError, ValueError, IndexError):
        return ""


def gone(daemon: subprocess.Popen[bytes]) -> bool:
    """Whether a daemon can do nothing any more. The thread that answers is the first one: the others only read, and
    bring to the disk what was written; one of them may be stuck in a call on the mount itself until the next daemon
    answers that, and so keep the process."""
    return daemon.poll() is not None or state_of(daemon.pid) in ("Z", "X")
