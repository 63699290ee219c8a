"""Facts about this machine and about a directory on it, as far as they decide whether a guard can work there.

Read-only and cheap; shared by `guardfs doctor` and the messages at start. Sources: proc(5), capabilities(7),
namespaces(7), inotify(7), fusermount3(1).
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import stat
import subprocess

import msgspec

from guardfs.lanes import procfs
from guardfs.mount import device
from guardfs.mount.capabilities import DAEMON, current

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode number of the machine's own pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "afs", "lustre", "ocfs2"}
)
"""File systems (besides FUSE) that other hosts can change without inotify saying so here."""

SQLITE_SINCE = (2026, 8, 1)
"""The first OpenClaw that keeps its transcripts in SQLite, under agents/ID/agent/."""


def missing_capabilities() -> list[str]:
    """Names of the capabilities that a daemon uses and this process does not have in effect."""
    effective = current("Eff")
    return [name for name, bit in DAEMON.items() if not effective >> bit & 1]


def self_status(field: str) -> str | None:
    """One field of /proc/self/status, None where the kernel does not have it."""
    try:
        return procfs.status_field(procfs.read("/proc/self/status", 8192), field.encode()).decode()
    except (OSError, ValueError):
        return None


def in_nested_pid_namespace() -> bool:
    """Whether callers outside our pid namespace can exist: they would show as pid 0."""
    return procfs.pid_namespace(os.getpid()) not in (None, INITIAL_PID_NAMESPACE)


def hidepid() -> str:
    """The option of /proc that hides other users' processes: "0" or "off" for none (proc(5))."""
    value = "0"
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                fields = line.split(" ")
                if len(fields) > 3 and fields[1] == "/proc" and fields[2] == "proc":
                    found = re.search(r"(?:^|,)hidepid=([^,]+)", fields[3])
                    value = found[1] if found else "0"
    except OSError:
        pass
    return value


def number_in(path: str) -> int | None:
    """The number that a file of /proc/sys holds."""
    try:
        return int(procfs.read(path, 64))
    except (OSError, ValueError):
        return None


def descriptor_limit() -> tuple[int, int]:
    """(soft, hard) limit of open files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def device_error() -> str | None:
    """Why /dev/fuse cannot be opened, None if it can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return None


class Helper(msgspec.Struct, frozen=True):
    """fusermount3, which mounts for ordinary users. version: that of libfuse, None if it would not say."""

    path: str
    setuid: bool
    version: str | None


def mount_helper() -> Helper | None:
    """fusermount3 on PATH, or None."""
    path = shutil.which("fusermount3")
    if path is None:
        return None
    version = None
    try:
        said = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10).stdout
        found = re.search(r"(\d+\.\d+(?:\.\d+)?)", said)
        version = found[1] if found else None
    except (OSError, subprocess.SubprocessError):
        pass
    info = os.stat(path)
    return Helper(path, bool(info.st_mode & stat.S_ISUID) and info.st_uid == 0, version)


def user_allow_other(path: str = "/etc/fuse.conf") -> bool:
    """Whether ordinary users may let others use their mounts."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            return any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def file_system_of(directory: str) -> device.Mount | None:
    """The mount on which *directory* (a real path) lies."""
    best: device.Mount | None = None
    for entry in device.mounts():
        prefix = entry.path.rstrip("/") + "/"
        if (directory + "/").startswith(prefix) and (best is None or len(entry.path) >= len(best.path)):
            best = entry
    return best


def is_remote(fstype: str) -> bool:
    """Whether changes can come from where no inotify event does."""
    return fstype in NETWORK_FILE_SYSTEMS or fstype == "fuse" or fstype.startswith("fuse.")


def lock_files(directory: str) -> list[str]:
    """Names of the lock files there at this moment. OSError if the directory cannot be listed."""
    return sorted(name for name in os.listdir(directory) if name.endswith(".lock"))


def agent_of(directory: str) -> str | None:
    """Which agent's transcripts a directory seems to hold: by its place, then by the first line of one."""
    path = directory.rstrip("/") + "/"
    for pattern, agent in (
        (r"/agents/[^/]+/sessions/$", "OpenClaw"),
        (r"/\.pi/agent/sessions/", "pi"),
        (r"/\.claude/projects/", "Claude Code"),
        (r"/\.codex/sessions/", "Codex CLI"),
        (r"/\.gemini/tmp/", "Gemini CLI"),
    ):
        if re.search(pattern, path):
            return agent
    try:
        names = os.listdir(directory)
        if "sessions.json" in names and any(name.endswith(".jsonl") for name in names):
            return "OpenClaw"
        for name in sorted(names):
            if name.endswith(".jsonl"):
                with open(os.path.join(directory, name), "rb") as transcript:
                    head = transcript.read(4096)
                if head.startswith(b"{") and b'"type":"session"' in head:
                    return "pi"
                if b'"parentUuid"' in head:
                    return "Claude Code"
    except OSError:
        pass
    return None


def sqlite_places(directory: str) -> list[str]:
    """Directories AGENTS/ID/agent that hold an agent's SQLite files and that a mount on *directory* would
    cover.

    *directory*: a real path. It is such a place, lies in one, or contains some (AGENTS/ID, AGENTS, or their
    parent).
    """
    places = []
    parts = directory.split("/")
    for depth in range(len(parts), 2, -1):
        if parts[depth - 1] == "agent" and parts[depth - 3 : depth - 2] == ["agents"]:
            places.append("/".join(parts[:depth]))
    for levels in (
        ("agent",),
        ("*", "agent"),
        ("agents", "*", "agent"),
        (".openclaw", "agents", "*", "agent"),
    ):
        places += [place for place in _matching(directory, levels) if place.split("/")[-3] == "agents"]
    return sorted(place for place in set(places) if _databases(place))


def sqlite_beside(directory: str) -> str | None:
    """The SQLite place of the agent whose sessions directory this is, if it has one."""
    place = os.path.join(os.path.dirname(directory.rstrip("/")), "agent")
    return place if _databases(place) else None


def _matching(directory: str, levels: tuple[str, ...]) -> list[str]:
    found = [directory]
    for level in levels:
        deeper = []
        for each in found:
            try:
                names = os.listdir(each) if level == "*" else [level]
            except OSError:
                continue
            deeper += [os.path.join(each, name) for name in names]
        found = [each for each in deeper if os.path.isdir(each)]
    return found


def _databases(place: str) -> list[str]:
    try:
        return [name for name in os.listdir(place) if name.endswith((".sqlite", ".db"))]
    except OSError:
        return []


def openclaw_version() -> str | None:
    """The version of the `openclaw` on PATH, from the package.json above what it links to."""
    found = shutil.which("openclaw")
    if found is None:
        return None
    directory = os.path.dirname(os.path.realpath(found))
    for _ in range(4):  # PACKAGE/openclaw.mjs, PACKAGE/dist/cli/..., and one to spare
        try:
            with open(os.path.join(directory, "package.json"), encoding="utf-8") as manifest:
                package = json.load(manifest)
            if isinstance(package, dict) and package.get("name") == "openclaw":
                return str(package.get("version"))
        except (OSError, ValueError):
            pass
        directory = os.path.dirname(directory)
    return None


def keeps_sqlite(version: str) -> bool:
    """Whether this OpenClaw version keeps transcripts in SQLite rather than in files."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    return numbers >= SQLITE_SINCE
