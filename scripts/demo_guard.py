"""The demo's hold on guardfs: commands started, watched with a deadline, and ended again whatever happens."""

from __future__ import annotations

import hashlib
import os
import pty
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from types import TracebackType

READY = 30.0  # seconds for a mount, an unmount or the log to answer; each takes far less than one
HERE = os.path.dirname(os.path.abspath(__file__))
GUARDFS = os.path.join(os.path.dirname(sys.executable), "guardfs")


class DemoError(Exception):
    """The demo cannot go on; the message is for the reader."""


class Process:
    """A child whose output is read line by line; in a session of its own: Ctrl-C is for the demo."""

    def __init__(
        self,
        *command: str,
        show: Callable[[str], None] | None = None,
        terminal: bool = False,
        cwd: str | None = None,
    ) -> None:
        """*show* gets each line as it comes. *terminal*: the child writes to one as wide as ours, in colours."""
        self.name = " ".join(os.path.basename(part) for part in command[:2])
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._show = show
        ours, childs = pty.openpty() if terminal else os.pipe()
        if terminal:
            size = shutil.get_terminal_size()
            termios.tcsetwinsize(childs, (size.lines, size.columns))
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=childs,
            stderr=childs,
            start_new_session=True,
            cwd=cwd,
        )
        os.close(childs)
        self._output = open(ours, encoding="utf-8", errors="replace")  # noqa: SIM115  (the reader closes it)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for line in self._output:
                bare = line.rstrip("\r\n")
                if self._show is not None:
                    self._show(bare)
                self.lines.append(bare)
                self._queue.put(bare)
        except OSError:  # EIO: how a terminal tells that its last writer has gone
            pass
        self._output.close()
        self._queue.put(None)

    def wait_line(self, text: str, seconds: float = READY) -> None:
        """Return when a line that contains *text* has been printed (and shown)."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise DemoError(
                    f"{self.name}: no line with {text!r} in {seconds:g} s; last: {self.lines[-1:]}"
                ) from None
            if line is None:
                raise DemoError(
                    f"{self.name}: ended with status {self.popen.wait()}: {' '.join(self.lines[-3:])}"
                )
            if text in line:
                return

    def finish(self, seconds: float = READY) -> int:
        """Wait for the end and return the exit status."""
        try:
            status = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{self.name}: still running after {seconds:g} s") from None
        self._reader.join()
        return status

    def end(self, seconds: float = READY) -> int:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.finish(seconds)


class Guarded:
    """A throw-away directory with guardfs over it; on leaving, children end, the guard goes, the files go."""

    def __init__(self, sessions: str = "sessions") -> None:
        self.home = os.path.realpath(tempfile.mkdtemp(prefix="guardfs-demo-"))
        self.name = sessions
        self.sessions = os.path.join(self.home, sessions)
        self.audit = os.path.join(self.home, "audit.jsonl")
        self.state = os.path.join(self.home, "state")
        os.makedirs(self.sessions, 0o700)
        self._children: list[Process] = []
        self._mount: Process | None = None

    def __enter__(self) -> Guarded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.end()
        if self._mount is not None and self._mount.popen.poll() is None:
            self._mount.end()
        if os.path.ismount(self.sessions):  # the guard failed to go: never delete through it
            subprocess.run(["fusermount3", "-u", "-z", self.sessions], check=False)
        if not os.path.ismount(self.sessions):
            shutil.rmtree(self.home, ignore_errors=True)

    def start(
        self, *command: str, show: Callable[[str], None] | None = None, terminal: bool = False
    ) -> Process:
        """Run a program in the throw-away directory; it ends with this object, if not before."""
        child = Process(*command, show=show, terminal=terminal, cwd=self.home)
        self._children.append(child)
        return child

    def mount(self, *options: str) -> str:
        """Put the guard over the directory, with *options*; the line with which it says that it is there."""
        self._mount = Process(
            GUARDFS,
            "mount",
            self.sessions,
            "--audit",
            self.audit,
            "--state",
            self.state,
            "--audit-level",
            "transcripts",
            *options,
        )
        self._mount.wait_line("guarding")
        if not os.path.ismount(self.sessions):
            raise DemoError("guardfs mount says that it guards, but nothing is mounted")
        return next(line for line in self._mount.lines if "guarding" in line)

    def unmount(self) -> None:
        """Take the guard off as an operator does, and wait for its process."""
        self.command("unmount", self.sessions)
        assert self._mount is not None
        status = self._mount.finish()
        if status or os.path.ismount(self.sessions):
            raise DemoError(f"guardfs mount ended with status {status}: {' '.join(self._mount.lines[-3:])}")

    def command(self, *args: str, text: str = "", found: bool = False) -> str:
        """Run ``guardfs ARGS`` in the throw-away directory to its end; its output. Any exit status but 0 (*found*: or
        1, it has found something) ends the demo."""
        done = subprocess.run(
            [GUARDFS, *args], capture_output=True, text=True, timeout=READY, input=text, cwd=self.home
        )
        if done.returncode > found:
            raise DemoError(
                f"guardfs {args[0]}: status {done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
        return done.stdout.rstrip("\n")


def contents(directory: str) -> dict[str, str]:
    """Every file below *directory* with the SHA-256 of its bytes."""
    found = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, directory)] = hashlib.sha256(file.read()).hexdigest()
    return found


def on_terminate() -> None:
    """Let SIGTERM and SIGHUP clean up as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
