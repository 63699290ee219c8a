"""What a running guard says of itself: the value of the extended attribute `user.guardfs.status` of the
mount's root, as JSON.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from guardfs import __version__
from guardfs.mount.caller import libfuse_version
from guardfs.mount.config import DaemonConfig
from guardfs.mount.dispatch import Dispatcher
from guardfs.mount.filesystem import FileSystem
from guardfs.mount.watch import Invalidator, Watch

_PADDED = 4096


def _readable(value: Any) -> Any:
    """The same with what is not UTF-8 written as backslash escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return {key: _readable(item) for key, item in value.items()} if isinstance(value, dict) else value


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Status:
    """Gathers the figures when somebody asks. more: further sections, by name; daemon: more of the section
    about the daemon."""

    def __init__(
        self,
        config: DaemonConfig,
        filesystem: FileSystem,
        dispatcher: Dispatcher,
        watch: Watch | None,
        invalidator: Invalidator,
        more: Mapping[str, Callable[[], dict[str, Any]]],
        daemon: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._config = config
        self._filesystem = filesystem
        self._dispatcher = dispatcher
        self._watch = watch
        self._invalidator = invalidator
        self._more = more
        self._daemon = daemon

    def facts(self) -> dict[str, Any]:
        """All figures; times in ns since the epoch, sizes in bytes."""
        fs, config = self._filesystem, self._config
        return {
            "v": 1,
            "version": __version__,
            "mountpoint": config.mountpoint,
            "daemon": {
                "pid": os.getpid(),
                "supervisor": config.supervisor_pid,
                "started_ns": config.started_ns,
                "now_ns": time.time_ns(),
                "resident": _resident_bytes(),
                "descriptors": len(os.listdir("/proc/self/fd")) - 1,
                "libfuse": libfuse_version(),
                "can_resend": config.agreement.can_resend,
                **self._daemon(),
            },
            "state": {"dir": config.state_dir},
            "audit": {**fs.audit.stats(), "required": fs.audit_required},
            **{name: facts() for name, facts in self._more.items()},
            "operations": dict(sorted(fs.operations.items())),
            "nodes": len(fs.nodes),
            "handles": len(fs.handles),
            "path_descriptors": len(fs.fds),
            "detached": self._dispatcher.detached,
            "processes": fs.processes.stats(),
            "sees_all_processes": fs.processes.sees_all(),
            "unseen_changes": fs.unseen_changes,
            "watching": self._watch is not None,
            "invalidations": self._invalidator.count,
            "internal_errors": {"count": fs.internal_errors + self._dispatcher.broken, "last": fs.last_error},
        }

    def encode(self) -> bytes:
        """The value of the attribute."""
        facts = self.facts()
        try:
            value = msgspec.json.encode(facts)
        except UnicodeEncodeError:  # a path that is not UTF-8
            value = msgspec.json.encode(_readable(facts))
        # readers ask for the size first, and then for the value: it must not have grown in between
        return value + b" " * (-len(value) % _PADDED)
