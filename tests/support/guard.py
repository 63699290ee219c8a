"""`guardfs mount` as a child process, for the length of a test."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import guardfs
from guardfs.audit import read
from tests.support.mounts import clear_mounts, mounts_below
from tests.support.waiting import wait_for

ROOT = Path(guardfs.__file__).parent.parent
GUARDFS = (sys.executable, "-m", "guardfs")
"""The command under test, in the interpreter that runs the tests."""

START_SECONDS = 60.0
STOP_SECONDS = 60.0

Event = dict[str, Any]
_UNEXPECTED = re.compile(
    r"WARNING|ERROR|CRITICAL|Traceback|Exception ignored|guardfs: .*(internal|ended with)"
)


def environment(**more: str) -> dict[str, str]:
    """The environment of a guard: this checkout is importable, in its daemon too."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def events_of(audit: Path, wanted: Callable[[Event], bool] = lambda event: True) -> list[Event]:
    """The events of a log at this moment, oldest first, those in rotated files too (a line without its end is left
    out)."""
    if not audit.exists():
        return []
    lines = [line for line in read.lines(str(audit)) if line.whole]
    return [event for event in (json.loads(line.raw) for line in lines) if wanted(event)]


class Guard:
    """A guard over *directory*; what it keeps and says lies in *beside*.

    expected: regular expressions for lines of its output that would otherwise fail the test. command: what is
    run instead of ``python -m guardfs`` (the words from ``mount`` on are appended).
    """

    def __init__(
        self,
        directory: Path,
        beside: Path,
        *options: str,
        command: Sequence[str] = GUARDFS,
        env: dict[str, str] | None = None,
        quiet: bool = False,
    ) -> None:
        beside.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.beside = beside
        self.state = beside / "state"
        self.audit = beside / "audit.jsonl"
        self.output = beside / "guardfs.out"
        self.options = ["--state", str(self.state), "--audit", str(self.audit), *options]
        if not quiet and "--force" not in options:
            self.options.append("--force")
        self.command = list(command)
        self.env = environment(**(env or {}))
        self.expected: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.daemon = 0
        self.connection = 0
        self._idle_descriptors = 0

    # ---- start

    def start(self) -> Guard:
        """Mount; return when the directory answers. RuntimeError with the guard's own words if it does
        not."""
        self.launch()
        try:
            wait_for(self.answers, "the guard to answer", START_SECONDS)
        except (TimeoutError, RuntimeError) as error:
            said = self.said()
            self.destroy()
            raise RuntimeError(
                f"{error}: {said}" if isinstance(error, TimeoutError) else str(error)
            ) from error
        status = self.status()
        self.daemon = status["daemon"]["pid"]
        self.connection = os.minor(os.stat(self.directory).st_dev)
        self._idle_descriptors = _unaccounted(status)
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the command and do not wait for anything."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.command, "mount", str(self.directory), *self.options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.env,
                cwd="/",
            )
        return self.process

    def answers(self) -> bool:
        """Whether it has said that it guards; RuntimeError if it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with status {self.process.returncode}: {self.said()}")
        return "guarding" in self.said()

    # ---- while it runs

    def said(self) -> str:
        """What the guard and its daemon printed so far."""
        return self.output.read_bytes().decode("utf-8", "surrogateescape") if self.output.exists() else ""

    def wait_said(self, pattern: str, seconds: float = 30.0) -> str:
        """The first line that *pattern* is found in."""

        def look() -> str:
            found = [line for line in self.said().splitlines() if re.search(pattern, line)]
            return found[0] if found else ""

        return wait_for(look, f"a line with {pattern!r}; said: {self.said()!r}", seconds)

    def status(self) -> dict[str, Any]:
        """The status, read as operators' tools do: from the extended attribute of the root."""
        found: dict[str, Any] = json.loads(os.getxattr(self.directory, "user.guardfs.status"))
        return found

    def events(self, wanted: Callable[[Event], bool] = lambda event: True) -> list[Event]:
        """See `events_of`."""
        return events_of(self.audit, wanted)

    def wait_event(self, wanted: Callable[[Event], bool], what: str = "an event") -> Event:
        """The first event that is *wanted*, once it is in the file."""
        return wait_for(lambda: self.events(wanted), what)[0]

    def settle(self) -> list[Event]:
        """All events, once the log has written everything that was emitted before this call."""
        wait_for(lambda: not self.status()["audit"]["queued"], "the log's queue to be empty")
        return self.events()

    # ---- the end

    def unmount(self) -> int:
        """SIGTERM, as an operator or systemd would; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """Unmount and check what was left: no descriptor too many, no line too many, no mount, no daemon."""
        self.check_idle()
        status = self.unmount()
        assert status == 0, f"exit status {status}: {self.said()}"
        assert not mounts_below(self.directory), f"still mounted: {self.said()}"
        self.check_said()
        assert not os.path.exists(f"/proc/{self.daemon}"), "the daemon outlived the unmount"

    def check_idle(self) -> None:
        """Fail if the daemon holds descriptors that neither a node nor an open file accounts for, or counts
        an error of its own."""

        def settled() -> bool:
            return _unaccounted(self.status()) <= self._idle_descriptors

        try:
            wait_for(settled, "descriptors to be closed", 5)
        except TimeoutError:
            links = [f"{fd.name} -> {os.readlink(fd)}" for fd in Path(f"/proc/{self.daemon}/fd").iterdir()]
            raise AssertionError(f"leaked descriptors: {links}") from None
        errors = self.status()["internal_errors"]
        assert not errors["count"] or self.expected, f"{errors}: {self.said()}"

    def check_said(self) -> None:
        """Fail on a warning, an error or a traceback that the test did not expect."""
        bad = [
            line
            for line in self.said().splitlines()
            if _UNEXPECTED.search(line) and not any(re.search(pattern, line) for pattern in self.expected)
        ]
        assert not bad, "the guard said: " + self.said()

    def abort(self) -> None:
        """Break the connection, so that whoever hangs in a call on the mount gets ENOTCONN. For watchdogs."""
        try:
            Path(f"/sys/fs/fuse/connections/{self.connection}/abort").write_text("1")
        except OSError:
            pass
        if self.daemon and _is_daemon(self.daemon):
            os.kill(self.daemon, signal.SIGKILL)

    def destroy(self) -> None:
        """Get rid of it whatever its state; never raises."""
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        clear_mounts(self.directory)
        if self.daemon and _is_daemon(self.daemon):
            try:
                wait_for(lambda: not _is_daemon(self.daemon), "the daemon to leave", 15)
            except TimeoutError:
                os.kill(self.daemon, signal.SIGKILL)


def _unaccounted(status: dict[str, Any]) -> int:
    """Descriptors of the daemon that are neither nodes', nor open files', nor held on threads or owners of fences."""
    held = status["path_descriptors"] + status["handles"] + status["processes"]["threads"]
    held += status["fences"]["watched"]
    return int(status["daemon"]["descriptors"] - held)


def _is_daemon(pid: int) -> bool:
    try:
        return b"guardfs.mount.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
