"""`guardfs mount` as a child process for the length of a test, and what a directory looks like."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway.gateway import wait_until

GUARDFS = [sys.executable, "-m", "guardfs"]
"""The command under test, in the interpreter that runs the tests."""

MOUNT_SECONDS = 30.0
STOP_SECONDS = 60.0


class Guard:
    """A guard over *directory*. Files of its own (state, audit log, output) are kept in *beside*."""

    def __init__(self, directory: Path, beside: Path, *options: str) -> None:
        beside.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.audit = beside / "audit.jsonl"
        self.output = beside / "guardfs.out"
        self.options = ["--state", str(beside / "state"), "--audit", str(self.audit), *options]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Guard:
        """Mount; return when the directory answers. RuntimeError with the guard's own words otherwise."""
        with self.output.open("wb") as output:
            command = [*GUARDFS, "mount", str(self.directory), *self.options]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_until(self._guarding, MOUNT_SECONDS, "not guarding")
        except (TimeoutError, RuntimeError) as error:
            self.stop()
            raise RuntimeError(f"guardfs mount: {error}: {self.said()}") from error
        return self

    def said(self) -> str:
        """What the guard printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def unmount(self) -> int:
        """SIGTERM, as an operator or systemd would; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """Get rid of it in any case; does not raise."""
        if self.process is None:
            return
        try:
            self.unmount()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for mount in reversed(mounts_below(self.directory)):
            subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)

    def _guarding(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with status {self.process.returncode}")
        return "guarding" in self.said() and os.path.ismount(self.directory)


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below *directory*, in the order in which they were mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        # octal escapes as mountinfo writes them: space, tab, newline, backslash
        name = line.split(b" ")[4]
        for code in (b"\\040", b"\\011", b"\\012", b"\\134"):
            name = name.replace(code, bytes([int(code[1:], 8)]))
        path = Path(os.fsdecode(name))
        if path == directory or directory in path.parents:
            found.append(path)
    return found


@dataclass(frozen=True)
class Entry:
    """One name in a directory. digest: SHA-256 of a file's bytes or of a link's target; empty for nothing."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    digest: str


def snapshot(directory: Path) -> dict[str, Entry]:
    """Everything below *directory*, itself included as ``.``, that must survive a mount and an unmount."""
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        info = path.lstat()
        content = b""
        if stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(info.st_mode):
            content = os.fsencode(os.readlink(path))
        found[str(path.relative_to(directory))] = Entry(
            mode=info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            size=0
            if stat.S_ISDIR(info.st_mode)
            else info.st_size,  # a directory's is the file system's affair
            mtime_ns=info.st_mtime_ns,
            links=info.st_nlink,
            digest=hashlib.sha256(content).hexdigest() if content else "",
        )
    return found


def events(audit: Path, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The events of an audit log that are *wanted*, in order."""
    with audit.open("rb") as lines:
        return [event for event in map(json.loads, lines) if wanted(event)]
