"""One guarded directory: its mount, its daemon, and the way from the one end to the other.

The order of start-up: directory opened, locked against a second guard, quiet moment, mount, daemon, `ready`. The
end: quiet moment, unmount, the daemon sees the connection end, flushes its log and leaves.

A guard never blocks: what takes time is written as `Steps`, a generator that yields the seconds after which it
wants to look again, at the latest. The supervisor's loop calls `step` then, and whenever something has happened.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from enum import Enum

import msgspec

from guardfs.audit.logfile import LogFile
from guardfs.errors import GuardError
from guardfs.mount import device, protocol
from guardfs.mount.config import DaemonConfig, Message, PolicyOptions, TakeOver, encode_config, parse
from guardfs.policy.effective import effective
from guardfs.policy.model import Transcripts
from guardfs.state.directory import StateDirectory
from guardfs.supervise.holders import described, holders
from guardfs.supervise.quiet import quiet_moment
from guardfs.supervise.say import ending, say
from guardfs.supervise.takeover import Care, Succession
from guardfs.transcript.names import NameRules

_READY_SECONDS = 30.0
_LEAVE_SECONDS = 10.0
_LOOK_SECONDS = 0.2
"""A daemon that says something, or ends, wakes the supervisor by itself; this is for the clock's sake."""

NO_RESEND = "GUARDFS_NO_RESEND"
"""In the environment: do as on a kernel before Linux 6.9, which does not send unanswered requests again."""

Steps = Generator[float, None, None]


class Settings(msgspec.Struct, frozen=True):
    """What an operator asked for. audit: path of the log. timeout: seconds to wait for a quiet moment; force: do not
    insist on one. care: for the daemon.
    """

    sessions: str
    state: str
    audit: str
    policy: PolicyOptions
    timeout: float = 10.0
    force: bool = False
    verbose: bool = False
    care: Care = Care()


class Phase(Enum):
    """Where a guard is on its way. ENDED: its daemon has, and `daemon_ended` deals with that."""

    NEW = "new"
    STARTING = "starting"
    SERVING = "serving"
    ENDED = "ended"
    LEAVING = "leaving"
    GONE = "gone"


class Guard:
    """One guarded directory. status: what its end adds to the supervisor's exit status, 0 or 1. impatient: do not wait
    for a quiet moment any longer. alone: nobody is left who could be in a turn.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.phase = Phase.NEW
        self.status = 0
        self.impatient = settings.force
        self.alone = False
        self.due: float | None = None  # on the monotonic clock: when `step` is to be called, whatever happens
        self.names = NameRules(settings.policy.policy.transcripts)
        self.backing = -1
        self.listing = -1  # the same directory, readable: for lock files, and the lock against a second guard
        self.fuse = -1
        self.device = ""  # of our own mount: nothing else is ever taken off
        self.state_lock = -1
        self.agreement: protocol.Agreement | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self._unread = b""
        self._ready = False
        self._failed: GuardError | None = None
        self._doing: Steps | None = None
        self.succession = Succession(self, settings.care)
        self.refused = False  # the last daemon could not take over what there was
        self.last: subprocess.Popen[bytes] | None = None  # what is done for the directory at the very end

    # ---- the supervisor's side

    def begin(self) -> None:
        """Start; it serves when the phase says so. `step` raises GuardError if it cannot; then nothing is mounted."""
        self._do(Phase.STARTING, self._start())

    def leave(self) -> None:
        """Unmount at a quiet moment; after the timeout, or when told to be impatient, all the same."""
        if self.phase in (Phase.STARTING, Phase.NEW):
            self._stop_doing()  # that undoes what was begun
            self.gone()
        elif self.succession.giving_up:
            pass  # it is as good as gone
        elif self.phase in (Phase.SERVING, Phase.ENDED):
            self._stop_doing()
            self._do(Phase.LEAVING, self._leave())

    def open_again(self) -> None:
        """A directory that was closed for its command, which has ended, is the plain one again."""
        if self.succession.closed:
            device.abort(self.settings.sessions, self.device, force=True)

    def step(self) -> None:
        """Act on what has happened since the last step."""
        for message in self._messages():
            self._message(message)
        if self.phase is Phase.SERVING:
            self.due = self.succession.look()
            if self.succession.dead():
                self._do(Phase.ENDED, self.succession.ended())
        if self._doing is None:
            return
        try:
            self.due = time.monotonic() + next(self._doing)
        except StopIteration:
            self._doing, self.due = None, None
            if self.phase is Phase.SERVING:
                self.due = time.monotonic()
        except Exception as error:
            starting = self.phase is Phase.STARTING
            self._doing, self.due = None, None
            self.gone()
            if starting:
                raise
            say(f"{self.settings.sessions}: {error!r}")  # one guard's trouble is not the end of the others
            self.status = 1

    def processes(self) -> list[subprocess.Popen[bytes]]:
        """Every process that it has started and still asks about: nobody else is to wait for these, or to end them."""
        return [process for process in (self.daemon, self.last) if process is not None]

    def _do(self, phase: Phase, steps: Steps) -> None:
        self.phase, self._doing, self.due = phase, steps, time.monotonic()

    def _stop_doing(self) -> None:
        doing, self._doing, self.due = self._doing, None, None
        if doing is not None:
            doing.close()

    def gone(self) -> None:
        """Let go of everything; this was the end."""
        self.phase = Phase.GONE
        self.let_go()

    def let_go(self) -> None:
        """Close everything that the directory is held by."""
        self.close_connection()
        self.succession.close()
        for fd in (self.listing, self.backing, self.state_lock):
            if fd >= 0:
                os.close(fd)
        self.listing = self.backing = self.state_lock = -1
        if self.control is not None:
            self.control.close()
            self.control = None

    # ---- start

    def _start(self) -> Steps:
        settings = self.settings
        self._open_directory()
        self.state_lock = StateDirectory(settings.state).lock()
        self._probe_log()
        if not settings.force:
            reason = yield from quiet_moment(
                self.listing, self.names, settings.timeout, lambda: self.impatient
            )
            if reason:
                raise GuardError(
                    f"{settings.sessions}: no quiet moment to mount in {settings.timeout:g} s: {reason}",
                    "a mount now would fail a turn in flight; try later, with a longer --timeout, or with --force",
                )
        self.succession.open()
        try:
            self.connect()
            self.spawn()
            yield from self.await_ready()
        except BaseException:
            self._give_up()
            raise
        self.succession.begun()
        self.phase = Phase.SERVING

    def connect(self) -> None:
        """Mount, and agree with the kernel. GuardError where that cannot be."""
        path = self.settings.sessions
        self.fuse = device.mount(path, f"guardfs:{path}")
        top = device.mount_at(path)
        self.device = top.device if top is not None else ""
        request = os.read(self.fuse, 1 << 16)
        self.agreement, reply = protocol.answer_init(request, resend=NO_RESEND not in os.environ)
        os.write(self.fuse, reply)

    @property
    def can_resend(self) -> bool:
        """Whether the kernel sends again what was not answered."""
        return self.agreement is not None and self.agreement.can_resend

    def _open_directory(self) -> None:
        path = self.settings.sessions
        try:
            self.backing = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.listing = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise GuardError(
                f"{path}: cannot be opened: {error.strerror}", "run guardfs as its owner or as root"
            ) from None
        try:
            fcntl.flock(self.listing, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GuardError(
                f"{path}: another guard holds this directory (perhaps under another path, or in another container)",
                "end that one first",
            ) from None
        except OSError:
            pass  # a file system without locks: the mount table is the only check

    def _probe_log(self) -> None:
        """A log that cannot be opened is found before the mount: each mount changes the device number."""
        settings = self.settings
        log = LogFile(settings.audit, effective(settings.policy.policy, settings.policy.over).keep)
        try:
            log.open()
        except OSError as error:
            raise GuardError(
                f"{settings.audit}: {error.strerror}", "choose another place with --audit"
            ) from None
        finally:
            log.close()

    def spawn(self, takeover: TakeOver | None = None) -> None:
        """Start a daemon on the mount that is there; `await_ready` waits for it. takeover: it is not the first."""
        settings = self.settings
        assert self.agreement is not None
        ours, theirs = socket.socketpair()
        config = DaemonConfig(
            mountpoint=settings.sessions,
            device=self.device,
            backing_fd=self.backing,
            fuse_fd=self.fuse,
            control_fd=theirs.fileno(),
            lock_fd=self.listing,
            agreement=self.agreement,
            state_dir=settings.state,
            audit=settings.audit,
            policy=settings.policy,
            fstype=self._fstype(),
            supervisor_pid=os.getpid(),
            started_ns=time.time_ns(),
            verbose=settings.verbose,
            memory_fd=self.succession.memory,
            held_fds=self.succession.held,
            heartbeat=self.succession.heartbeat,
            takeover=takeover,
        )
        memory = os.memfd_create("guardfs-config")
        os.write(memory, encode_config(config))
        os.lseek(memory, 0, os.SEEK_SET)
        command = [sys.executable, "-P", "-m", "guardfs.mount.daemon", str(memory)]
        self.daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[
                self.backing,
                self.fuse,
                theirs.fileno(),
                self.listing,
                self.state_lock,
                memory,
                *self.succession.fds,
            ],
            start_new_session=True,  # Ctrl-C is the supervisor's to handle
            cwd="/",
        )
        os.close(memory)
        theirs.close()
        ours.setblocking(False)
        if self.control is not None:
            self.control.close()
        self.control, self._unread = ours, b""
        self._ready, self._failed, self.refused = False, None, False

    def _fstype(self) -> str:
        """The type of the file system below: by the device number of the directory that was opened before
        the mount.
        """
        device_number = os.fstat(self.backing).st_dev
        wanted = f"{os.major(device_number)}:{os.minor(device_number)}"
        for entry in device.mounts():
            if entry.device == wanted:
                return entry.fstype
        return "unknown"

    def await_ready(self) -> Steps:
        """Until the daemon serves. GuardError if it does not."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready:
            if self._failed is not None:
                raise self._failed
            assert self.daemon is not None
            status = self.daemon.poll()
            if status is not None and not self._pending():
                raise GuardError(
                    f"the daemon ended at start with {ending(status)}",
                    "its log above says why; `guardfs doctor` may, too",
                )
            if time.monotonic() > deadline:
                raise GuardError(f"the daemon was not ready within {_READY_SECONDS:g} s", "see its log above")
            yield _LOOK_SECONDS

    def _give_up(self) -> None:
        """Undo a start that failed."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        self.close_connection()
        device.abort(self.settings.sessions, self.device, force=True)

    def close_connection(self) -> None:
        """Let go of /dev/fuse: the connection ends with the daemon's own descriptor."""
        if self.fuse >= 0:
            os.close(self.fuse)
            self.fuse = -1

    # ---- what the daemon says

    def _pending(self) -> bool:
        return self.control is not None and bool(select.select([self.control], [], [], 0)[0])

    def _messages(self) -> list[Message]:
        if self.control is None:
            return []
        try:
            data = self.control.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.control.close()
            self.control = None
            return []
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [parse(line) for line in lines]

    def _message(self, message: Message) -> None:
        if message.kind == "ready":
            self._ready = True
        elif message.kind == "failed":
            self._failed = GuardError(message.what, message.mend)
        elif message.kind == "refused":
            self._failed, self.refused = GuardError(message.what, message.mend), True
        elif message.kind == "names":  # another policy: other files are locks
            self.names = NameRules(msgspec.json.decode(message.what, type=Transcripts))
        else:
            self.succession.message(message)

    def reload(self) -> None:
        """The daemon opens its log anew and looks at the policy."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGHUP)

    # ---- the end

    def _leave(self) -> Steps:
        settings = self.settings
        if not settings.force and not (self.alone and not device.is_shared(settings.sessions, self.device)):
            try:
                reason = yield from quiet_moment(
                    self.listing, self.names, settings.timeout, lambda: self.impatient
                )
            except Exception as error:  # whatever lies in the directory, it must not keep the mount
                reason = f"its lock files cannot be read ({error!r})"
            if reason:
                say(f"{settings.sessions}: unmounting although {reason}: a turn in flight may fail")
        if self._take_off():
            yield from self._farewell()
        else:
            self.status = 1
        self.gone()

    def _take_off(self) -> bool:
        path = device.place_of(self.device, self.settings.sessions)
        if path is None:
            return True  # somebody was faster
        if not device.is_top(path, self.device):
            say(f"{path}: another mount lies over the guard; take that off, then `guardfs unmount {path}`")
            return False
        try:
            device.unmount(path)
        except OSError as error:
            if error.errno == errno.EINVAL and not device.is_top(path, self.device):
                return True  # somebody was faster
            if error.errno != errno.EBUSY:
                say(f"{path}: cannot unmount: {error.strerror}; try `umount -l {path}`")
                return False
            others = described(holders(path, besides=self._own_pids()))
            say(f"{path}: busy, held by {others}; detached, and gone when they let go")
            try:
                if device.is_top(path, self.device):
                    device.unmount(path, lazy=True)
            except OSError as again:
                say(f"{path}: cannot detach: {again.strerror}; try `umount -l {path}`")
                return False
        return True

    def _own_pids(self) -> set[int]:
        return {os.getpid(), *([self.daemon.pid] if self.daemon is not None else [])}

    def _farewell(self) -> Steps:
        assert self.daemon is not None
        self.close_connection()
        deadline = time.monotonic() + _LEAVE_SECONDS
        while self.daemon.poll() is None:
            if time.monotonic() > deadline:
                say(f"the daemon {self.daemon.pid} stays until the last user of the detached mount lets go")
                return
            yield _LOOK_SECONDS
        if self.daemon.returncode != 0:
            say(f"the daemon ended with {ending(self.daemon.returncode)} while unmounting")
            self.status = 1
            return
        say(f"{self.settings.sessions}: unmounted")
