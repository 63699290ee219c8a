"""What is compared: a plain directory, other FUSE file systems, and guardfs, each over a directory of its
own.

Every daemon runs as a child of the bench and is unmounted by `umount`, so that a mount is gone when its child
has ended.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from guardfs.errors import GuardError

MOUNT_SECONDS = 30.0
END_SECONDS = 60.0

PACKAGES = {"bindfs": "bindfs", "loggedfs": "loggedfs", "mergerfs": "mergerfs"}
"""The Debian and Ubuntu package of each tool."""

LOG_EVERYTHING = """<?xml version="1.0" encoding="UTF-8"?>
<loggedFS logEnabled="true" printProcessName="true">
  <includes><include extension=".*" uid="*" action=".*" retname=".*"/></includes>
  <excludes/>
</loggedFS>
"""

PROCESSORS = sorted(os.sched_getaffinity(0))

PLACEMENTS = ("apart", "together", "free")
"""Where the bench and a daemon run. ``apart``: on different processors, so that every request wakes a
sleeping one: what
a gateway sees, which is not on the daemon's processor. ``together``: on the same one, so that only the work
counts.
``free``: as the scheduler likes, which is now the one and now the other, ten times faster: never compare two
such runs.
"""


@dataclass
class Target:
    """A mounted file system (or a plain directory). directory: to work in; daemon: serves it."""

    name: str
    directory: str
    daemon: psutil.Process | None = None

    def rss_mb(self) -> float | None:
        """Resident memory of the daemon and its own children, MB (2**20 bytes); None without a daemon."""
        if self.daemon is None:
            return None
        return float(sum(process.memory_info().rss for process in self._family())) / 2**20

    def place(self, placement: str) -> None:
        """Put the bench and this target's daemon, all threads, on processors as `PLACEMENTS` says."""
        client = {PROCESSORS[0]} if placement != "free" else set(PROCESSORS)
        server = (set(PROCESSORS[1:]) or client) if placement == "apart" else client
        os.sched_setaffinity(0, client)
        for process in self._family():
            for thread in process.threads():
                with suppress(ProcessLookupError):  # a thread may end at any time
                    os.sched_setaffinity(thread.id, server)

    def _family(self) -> list[psutil.Process]:
        return [self.daemon, *self.daemon.children(recursive=True)] if self.daemon else []


@dataclass(frozen=True)
class Places:
    """Where one target keeps its things. backing: on the storage under test; logs: on the disk in any case."""

    backing: Path
    logs: Path

    def source(self) -> Path:
        """The directory that holds the files."""
        return self.backing / "source"

    def mount(self) -> Path:
        """An empty directory to mount on, for those that cannot mount over their source."""
        made = self.backing / "mount"
        made.mkdir(exist_ok=True)
        return made


Start = Callable[[Places, list[str]], tuple[list[str], Path]]
"""From places and extra options: the command that serves in the foreground, and where it mounts."""


def _allow_other() -> list[str]:
    return ["-o", "allow_other"] if os.geteuid() == 0 else []


def _bindfs(places: Places, options: list[str]) -> tuple[list[str], Path]:
    return ["bindfs", "-f", *_allow_other(), str(places.source()), str(places.mount())], places.mount()


def _mergerfs(places: Places, options: list[str]) -> tuple[list[str], Path]:
    return ["mergerfs", "-f", *_allow_other(), str(places.source()), str(places.mount())], places.mount()


def _loggedfs(places: Places, options: list[str]) -> tuple[list[str], Path]:
    config = places.logs / "loggedfs.xml"
    config.write_text(LOG_EVERYTHING)
    public = ["-p"] if os.geteuid() == 0 else []
    log = str(places.logs / "loggedfs.log")
    return ["loggedfs", "-f", *public, "-c", str(config), "-l", log, str(places.source())], places.source()


def _guardfs(places: Places, options: list[str]) -> tuple[list[str], Path]:
    state, audit = str(places.logs / "state"), str(places.logs / "audit.jsonl")
    command = [sys.executable, "-m", "guardfs", "mount", str(places.source())]
    return [*command, "--state", state, "--audit", audit, *options], places.source()


UNFENCED = """
version = 1
[fence]
protocol = "none"
[[rules]]
name = "everything"
verdict = "allow"
"""


def _unfenced(places: Places, options: list[str]) -> tuple[list[str], Path]:
    policy = places.logs / "unfenced.toml"
    policy.write_text(UNFENCED)
    policy.chmod(0o600)
    return _guardfs(places, ["--policy", str(policy), *options])


def _fenced(places: Places, options: list[str]) -> tuple[list[str], Path]:
    return _guardfs(places, ["--policy", "openclaw", *options])


def _enforcing(places: Places, options: list[str]) -> tuple[list[str], Path]:
    return _guardfs(places, ["--policy", "openclaw", "--mode", "enforce", *options])


STARTS: dict[str, Start | None] = {
    "plain": None,
    "bindfs": _bindfs,
    "loggedfs": _loggedfs,
    "mergerfs": _mergerfs,
    "guardfs": _guardfs,
    "unfenced": _unfenced,
    "fenced": _fenced,
    "enforcing": _enforcing,
}
OPTIONAL = {"mergerfs", "unfenced", "fenced", "enforcing"}
"""Left out unless they are asked for, or installed. The last three are guardfs without fences, and with OpenClaw's
policy: recording, and enforcing."""


def choose(asked: list[str] | None) -> list[str]:
    """The targets to run: those *asked* for, or all, without optional ones that are not installed.

    Raises `GuardError` for an unknown name and for a tool that is missing.
    """
    for name in asked or []:
        if name not in STARTS:
            raise GuardError(f"no target {name!r}", f"choose from {', '.join(STARTS)}")
    chosen = asked or [n for n in STARTS if n not in OPTIONAL or shutil.which(n)]
    for name in chosen:
        if name in PACKAGES and not shutil.which(name):
            raise GuardError(
                f"{name}: not found", f"apt-get install {PACKAGES[name]}, or leave it out with --only"
            )
    if chosen != ["plain"] and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise GuardError(
            "/dev/fuse: missing or forbidden", "load the fuse module, or run where it may be opened"
        )
    return chosen


@contextmanager
def mounted(
    name: str, places: Places, options: list[str], populate: Callable[[Path], None]
) -> Iterator[Target]:
    """Make the source, let *populate* fill it, mount; in the end undo it all. `GuardError` if it does not mount."""
    os.sched_setaffinity(0, PROCESSORS)  # a daemon inherits it
    places.source().mkdir(parents=True)
    places.logs.mkdir(parents=True)
    populate(places.source())
    start = STARTS[name]
    if start is None:
        yield Target(name, str(places.source()))
        return
    command, point = start(places, options)
    said = places.logs / "output"
    with said.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],  # `python -m guardfs` must find the tree under test
            start_new_session=True,  # the terminal's Ctrl-C is for the bench, which unmounts in order
        )
    try:
        _wait_mounted(name, child, point, said, command)
        yield Target(name, str(point), psutil.Process(child.pid))
    finally:
        _end(child, point)


def _wait_mounted(
    name: str, child: subprocess.Popen[bytes], point: Path, said: Path, command: list[str]
) -> None:
    end = time.monotonic() + MOUNT_SECONDS
    while not (point.is_mount() and _answers(point)):
        if child.poll() is not None or time.monotonic() > end:
            last = (said.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise GuardError(f"{name} does not mount: {last[:200]}", f"try it by hand: {shlex.join(command)}")
        time.sleep(0.02)


def _answers(point: Path) -> bool:
    try:
        os.stat(point)
    except OSError:
        return False
    return True


def _end(child: subprocess.Popen[bytes], point: Path) -> None:
    unmount = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    if point.is_mount():
        done = subprocess.run([*unmount, str(point)], capture_output=True)
        if done.returncode:
            lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run([*lazily, str(point)], capture_output=True)
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
