"""The machine: versions, the kernel, what this process may do. Nothing here touches a guarded directory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import msgspec

from guardfs import __version__
from guardfs.mount import device
from guardfs.mount.capabilities import current
from guardfs.supervise import facts

_PACKAGES = (
    "pyfuse3 trio xattr psutil msgspec click inotify_simple tree-sitter tree-sitter-toml starlette hypercorn "
    "prometheus-client"
).split()

_SMALL = 1 << 16


def versions() -> dict[str, Any]:
    """Of everything that runs."""
    return {
        "guardfs": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": sys.version,
        "packages": dict(_packages()),
        "libc": " ".join(platform.libc_ver()),
        "libfuse": _libfuse(),
        "fusermount3": msgspec.to_builtins(facts.mount_helper()),
        "system": _system(),
        "openclaw": facts.openclaw_version(),
    }


def kernel() -> dict[str, Any]:
    """What decides whether, and how well, a guard works here."""
    names = platform.uname()
    return {
        "release": names.release,
        "version": names.version,
        "machine": names.machine,
        "processors": len(os.sched_getaffinity(0)),
        "capabilities": {name: f"{current(name):016x}" for name in ("Prm", "Eff", "Inh", "Bnd", "Amb")},
        "missing_capabilities": facts.missing_capabilities(),
        "effective_uid_is_root": os.geteuid() == 0,
        "no_new_privs": facts.self_status("NoNewPrivs"),
        "seccomp": facts.self_status("Seccomp"),
        "nested_pid_namespace": facts.in_nested_pid_namespace(),
        "hidepid": facts.hidepid(),
        "descriptors": facts.descriptor_limit(),
        "device": facts.device_error() or "can be opened",
        "user_allow_other": facts.user_allow_other(),
        "lsm": _read("/sys/kernel/security/lsm"),
        "confined_by": _read("/proc/self/attr/current"),
        "cgroup": _read("/proc/self/cgroup"),
        "inotify": {
            name: facts.number_in(f"/proc/sys/fs/inotify/{name}")
            for name in ("max_user_watches", "max_user_instances", "max_queued_events")
        },
        "load": _read("/proc/loadavg"),
        "memory": _lines("/proc/meminfo", 3),
        "pressure": {name: _read(f"/proc/pressure/{name}") for name in ("cpu", "io", "memory")},
        "connections": dict(_connections()),
        "mounts": list(_mounts()),
    }


def _packages() -> Iterator[tuple[str, str | None]]:
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, None


def _libfuse() -> str | None:
    try:
        from guardfs.mount.caller import libfuse_version

        return str(libfuse_version())
    except (ImportError, OSError, AttributeError):
        return None


def _system() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _read(path: str) -> str | None:
    """A small file of the kernel's; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(_SMALL).rstrip(b"\n\0").decode("utf-8", "backslashreplace")
    except OSError:
        return None


def _lines(path: str, count: int) -> list[str]:
    return (_read(path) or "").splitlines()[:count]


def _connections() -> Iterator[tuple[str, dict[str, str | None]]]:
    """Of every FUSE connection: requests that wait for an answer, and how many may."""
    for mount in device.guards():
        minor = mount.device.rpartition(":")[2]
        where = f"/sys/fs/fuse/connections/{minor}"
        names = ("waiting", "max_background", "congestion_threshold")
        yield mount.device, {name: _read(f"{where}/{name}") for name in names}


def _mounts() -> Iterator[dict[str, str]]:
    """The guards' mounts, those that they lie on, and other FUSE file systems."""
    guarded = [mount.path for mount in device.guards()]
    for mount in device.mounts():
        below = any(path == mount.path or path.startswith(mount.path.rstrip("/") + "/") for path in guarded)
        if below or mount.fstype.startswith("fuse"):
            yield {"path": mount.path, "type": mount.fstype, "device": mount.device, "root": mount.root}
