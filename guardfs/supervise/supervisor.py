"""Holds the mount, starts the daemon that serves it, runs the agent, and takes the mount off again.

The supervisor does little, so that it has little to die of: it opens the directory, mounts over it, answers
the kernel's INIT, hands the descriptors to a daemon, and waits. Order of start-up: directory opened, locked
against a second guard, quiet moment, mount, daemon, `ready`. The end: quiet moment, unmount, the daemon sees
the connection end, flushes its log and leaves.
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
from collections.abc import Callable, Sequence

import msgspec

from guardfs.audit.logfile import LogFile
from guardfs.errors import GuardError
from guardfs.mount import device, protocol
from guardfs.mount.config import DaemonConfig, Message, PolicyOptions, encode_config, parse
from guardfs.policy.effective import effective
from guardfs.policy.model import Transcripts
from guardfs.state.directory import StateDirectory
from guardfs.supervise.holders import described, holders
from guardfs.supervise.notify import notify
from guardfs.supervise.quiet import wait_for_quiet
from guardfs.transcript.names import NameRules

_READY_SECONDS = 30.0
_LEAVE_SECONDS = 10.0


class Settings(msgspec.Struct, frozen=True):
    """What an operator asked for. audit: path of the log. timeout: seconds to wait for a quiet moment; force: do not
    insist on one.
    """

    sessions: str
    state: str
    audit: str
    policy: PolicyOptions
    timeout: float = 10.0
    force: bool = False
    verbose: bool = False


def say(text: str) -> None:
    """One line to the operator."""
    line = f"guardfs: {text}\n".encode("utf-8", "backslashreplace")
    try:
        os.write(2, line)  # past Python's buffer, which would fail once more at exit, and change its status
    except OSError:  # nobody listens; that must never keep a mount from its end
        pass


class Signals:
    """Signals as numbers to wait for, instead of handlers that run anywhere."""

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


class Supervisor:
    """One guarded directory."""

    def __init__(self, settings: Settings, signals: Signals) -> None:
        self.settings = settings
        self.signals = signals
        self.names = NameRules(settings.policy.policy.transcripts)
        self.backing = -1
        self.listing = -1  # the same directory, readable: for lock files, and the lock against a second guard
        self.fuse = -1
        self.device = ""  # of our own mount: nothing else is ever taken off
        self.state_lock = -1
        self.daemon: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._unread = b""

    # ---- start

    def start(self) -> None:
        """Mount, and return when the directory answers. Raises GuardError; then nothing is left mounted."""
        settings = self.settings
        self._open_directory()
        self.state_lock = StateDirectory(settings.state).lock()
        self._probe_log()
        self._wait("mount")
        self.fuse = device.mount(settings.sessions, f"guardfs:{settings.sessions}")
        try:
            top = device.mount_at(settings.sessions)
            self.device = top.device if top is not None else ""
            request = os.read(self.fuse, 1 << 16)
            agreement, reply = protocol.answer_init(request)
            os.write(self.fuse, reply)
            self._spawn(agreement)
            self._await_ready()
        except BaseException:
            self._give_up()
            raise
        notify("READY=1")

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

    def _wait(self, what: str) -> None:
        """Insist on a quiet moment, or on --force."""
        settings = self.settings
        if settings.force:
            return
        reason = wait_for_quiet(self.listing, self.names, settings.timeout, impatient=self._interrupted)
        if reason:
            raise GuardError(
                f"{settings.sessions}: no quiet moment to {what} in {settings.timeout:g} s: {reason}",
                f"a {what} now would fail a turn in flight; try later, with a longer --timeout, or with --force",
            )

    def _interrupted(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.signals], [], [], seconds)
        if not ready:
            return False
        return any(number in (signal.SIGTERM, signal.SIGINT) for number in self.signals.take())

    def _spawn(self, agreement: protocol.Agreement) -> None:
        settings = self.settings
        ours, theirs = socket.socketpair()
        config = DaemonConfig(
            mountpoint=settings.sessions,
            device=self.device,
            backing_fd=self.backing,
            fuse_fd=self.fuse,
            control_fd=theirs.fileno(),
            lock_fd=self.listing,
            agreement=agreement,
            state_dir=settings.state,
            audit=settings.audit,
            policy=settings.policy,
            fstype=self._fstype(),
            supervisor_pid=os.getpid(),
            started_ns=time.time_ns(),
            verbose=settings.verbose,
        )
        memory = os.memfd_create("guardfs-config")
        os.write(memory, encode_config(config))
        os.lseek(memory, 0, os.SEEK_SET)
        command = [sys.executable, "-P", "-m", "guardfs.mount.daemon", str(memory)]
        self.daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[self.backing, self.fuse, theirs.fileno(), self.listing, self.state_lock, memory],
            start_new_session=True,  # Ctrl-C is the supervisor's to handle
            cwd="/",
        )
        os.close(memory)
        theirs.close()
        ours.setblocking(False)
        self._control = ours

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

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            for message in self._messages():
                if message.kind == "ready":
                    return
                if message.kind == "failed":
                    raise GuardError(message.what, message.mend)
            assert self.daemon is not None
            status = self.daemon.poll()
            if status is not None and not self._pending():
                raise GuardError(
                    f"the daemon ended at start with {_ending(status)}",
                    "its log above says why; `guardfs doctor` may, too",
                )
            if time.monotonic() > deadline:
                raise GuardError(f"the daemon was not ready within {_READY_SECONDS:g} s", "see its log above")
            if self._interrupted(0.02):
                raise GuardError("interrupted at start", "start again")

    def _pending(self) -> bool:
        return self._control is not None and bool(select.select([self._control], [], [], 0)[0])

    def _messages(self) -> list[Message]:
        if self._control is None:
            return []
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._control.close()
            self._control = None
            return []
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [parse(line) for line in lines]

    def _give_up(self) -> None:
        """Undo a start that failed."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        self._close_connection()
        device.abort(self.settings.sessions, self.device)

    def _close_connection(self) -> None:
        if self.fuse >= 0:
            os.close(self.fuse)
            self.fuse = -1

    # ---- while it runs

    def attend(self, command: subprocess.Popen[bytes] | None, forward: Callable[[int], None]) -> int:
        """Wait until the command, the operator or the daemon ends it; the exit status. The mount is gone
        afterwards.
        """
        try:
            return self._attend(command, forward)
        finally:
            self.signals.ignore()

    def _attend(self, command: subprocess.Popen[bytes] | None, forward: Callable[[int], None]) -> int:
        assert self.daemon is not None
        while True:
            watched: list[Signals | socket.socket] = [self.signals]
            if self._control is not None:
                watched.append(self._control)
            select.select(watched, [], [], None)
            for message in self._messages():
                if message.kind == "names":  # another policy: other files are locks
                    self.names = NameRules(msgspec.json.decode(message.what, type=Transcripts))
            numbers = self.signals.take()
            for number in numbers:
                if number == signal.SIGHUP and command is None:
                    self.daemon.send_signal(signal.SIGHUP)
                elif command is not None:
                    forward(number)
                elif number in (signal.SIGTERM, signal.SIGINT):
                    return self.stop()
            if self.daemon.poll() is not None:
                if command is not None and not device.is_top(self.settings.sessions, self.device):
                    ended = command.poll() is not None  # both at once: its status counts all the same
                    say(
                        f"{self.settings.sessions} was unmounted"
                        + ("" if ended else "; the command goes on unguarded")
                    )
                    return _exit_status(self._outlive(command, forward))
                return self._daemon_ended(command, forward)
            if command is not None and command.poll() is not None:
                status = self.stop()
                return _exit_status(command.returncode) or status

    def _outlive(self, command: subprocess.Popen[bytes], forward: Callable[[int], None]) -> int:
        """The mount is gone; wait for the command all the same."""
        while command.poll() is None:
            select.select([self.signals], [], [], None)
            for number in self.signals.take():
                forward(number)
        return command.returncode

    def _daemon_ended(self, command: subprocess.Popen[bytes] | None, forward: Callable[[int], None]) -> int:
        assert self.daemon is not None
        status = self.daemon.returncode
        if status == 0 and not device.is_top(self.settings.sessions, self.device):
            say(f"{self.settings.sessions}: unmounted")
            return 0
        say(
            f"the daemon ended with {_ending(status)}; {self.settings.sessions} is unguarded from now on, "
            "its files are intact"
        )
        self._close_connection()
        device.abort(self.settings.sessions, self.device)
        if command is not None:
            return _exit_status(self._outlive(command, forward)) or 1
        return 1

    # ---- the end

    def stop(self) -> int:
        """Unmount at a quiet moment; after --timeout, or a second signal, all the same."""
        settings = self.settings
        notify("STOPPING=1")
        if not settings.force:
            try:
                reason = wait_for_quiet(
                    self.listing, self.names, settings.timeout, impatient=self._interrupted
                )
            except Exception as error:  # whatever lies in the directory, it must not keep the mount
                reason = f"its lock files cannot be read ({error!r})"
            if reason:
                say(f"{settings.sessions}: unmounting although {reason}: a turn in flight may fail")
        if not self._take_off():
            return 1
        return self._farewell()

    def _take_off(self) -> bool:
        path = self.settings.sessions
        if not any(entry.path == path and entry.device == self.device for entry in device.mounts()):
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

    def _farewell(self) -> int:
        assert self.daemon is not None
        self._close_connection()
        try:
            status = self.daemon.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"the daemon {self.daemon.pid} stays until the last user of the detached mount lets go")
            return 0
        if status != 0:
            say(f"the daemon ended with {_ending(status)} while unmounting")
            return 1
        say(f"{self.settings.sessions}: unmounted")
        return 0


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _exit_status(returncode: int) -> int:
    """A command's status as a shell tells it: 128 + n after signal n."""
    return 128 - returncode if returncode < 0 else returncode


def spawn_command(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], Callable[[int], None]]:
    """Start the agent; returns it, and a function that passes a signal on to it."""
    try:
        # looked up again: this process's own working directory may lie under the mount by now
        child = subprocess.Popen(list(command), cwd=os.getcwd())
    except FileNotFoundError:
        raise GuardError(f"{command[0]}: command not found", "check the words after `--`") from None
    except OSError as error:
        raise GuardError(f"{command[0]}: {error.strerror}", "check the words after `--`") from None

    def from_terminal() -> bool:
        try:
            return os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            return False

    def forward(number: int) -> None:
        if number == signal.SIGCHLD or child.poll() is not None:
            return
        if number in (signal.SIGINT, signal.SIGQUIT) and from_terminal():
            return  # the terminal has sent it to the whole group already
        child.send_signal(number)

    return child, forward
