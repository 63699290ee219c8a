"""`guardfs run` as PID 1 of pid and mount namespaces of its own, as in a container; or as a plain process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.guard import GUARDFS, Event, environment, events_of
from tests.support.mounts import clear_mounts
from tests.support.waiting import wait_for

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--")


class Container:
    """One run. first: as PID 1. first_pid: the supervisor's process id, as it is outside. Used as a context, all of
    it is gone afterwards.
    """

    def __init__(self, place: Path, words: Sequence[str], *options: str, first: bool = True) -> None:
        self.directory = place / "sessions"
        with contextlib.suppress(FileExistsError):  # with a dead mount on it: it must not be looked at
            self.directory.mkdir()
        self.audit = place / "audit.jsonl"
        self.output = place / "output"
        self.errors = place / "errors"
        self.first = first
        self.first_pid = 0
        self.words = [
            *(NAMESPACES if first else ()),
            *GUARDFS, "run", "--sessions", str(self.directory), "--state", str(place / "state"),
            "--audit", str(self.audit), *options, "--", *words,
        ]  # fmt: skip

    def __enter__(self) -> Container:
        with self.output.open("ab") as output, self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment(),
                cwd="/",
            )
        self.first_pid = self.process.pid
        if self.first:
            self.first_pid = wait_for(lambda: next(iter(children(self.process.pid)), 0), "PID 1 to be there")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        clear_mounts(self.directory)

    def kill(self) -> None:
        """SIGKILL to the supervisor; as PID 1 the kernel kills all others with it."""
        os.kill(self.first_pid, signal.SIGKILL)
        self.process.wait(60)

    def said(self) -> str:
        """What the command has printed so far."""
        return self.output.read_text()

    def complained(self) -> str:
        """What the guard, and the command's standard error, have said so far."""
        return self.errors.read_text()

    def wait_said(self, word: str) -> str:
        """Wait until the command has printed a line that begins with *word*; the rest of the line."""

        def look() -> list[str]:
            assert self.process.poll() is None or word in self.said(), self.complained()
            lines = self.said().split("\n")[:-1]
            return [line for line in lines if line.startswith(word)]

        return wait_for(look, f"the command to say {word!r}; {self.complained()!r}")[0][len(word) :].strip()

    def send(self, number: int) -> None:
        """A signal to the supervisor, as the container's engine sends it."""
        os.kill(self.first_pid, number)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        status = self.process.wait(120)
        if not self.first:
            assert not clear_mounts(self.directory), "left mounted"
        return status

    def inside(self, *words: str, data: bytes = b"") -> None:
        """Run a command to its end inside, as `docker exec` does."""
        enter = ["nsenter", "-t", str(self.first_pid), "-m", *(["-p"] if self.first else []), "--"]
        done = subprocess.run([*enter, *words], input=data, capture_output=True, env=environment(), cwd="/")
        assert done.returncode == 0, done.stderr.decode()

    def events(self, op: str) -> list[Event]:
        """The events of one operation."""
        return events_of(self.audit, lambda event: event["op"] == op)


def children(pid: int) -> list[int]:
    """The children of a process, zombies too; none if it is gone."""
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []
