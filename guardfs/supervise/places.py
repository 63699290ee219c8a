"""Checks of what an operator names, before anything is mounted. Each refusal is one line with the mend."""

from __future__ import annotations

import os
import stat

from guardfs.audit.logfile import link_of
from guardfs.errors import GuardError
from guardfs.mount import device

_FIRST_LINE = 1 << 20


def clear_dead_mount(path: str) -> bool:
    """Detach a guard's mount whose server is dead ("Transport endpoint is not connected"); whether there was
    one.
    """
    cleared = False
    for _ in range(8):
        try:
            os.statvfs(
                path
            )  # not stat: the kernel may know the answer to that, long after the server is dead
            return cleared
        except OSError as error:
            if error.errno not in device.DEAD:
                return cleared
        real = os.path.join(
            os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(os.path.abspath(path))
        )
        top = device.mount_at(real)
        if top is None:
            return cleared
        if top.fstype != device.FSTYPE:
            raise GuardError(
                f"{path}: a dead mount of {top.fstype} ({top.source}) lies on it",
                f"take it off: umount -l {path}",
            )
        try:
            device.unmount(real, lazy=True)
        except OSError as error:
            raise GuardError(
                f"{path}: a dead mount lies on it, and cannot be detached: {error.strerror}",
                f"umount -l {path}",
            ) from None
        cleared = True
    return cleared


def sessions_directory(path: str) -> str:
    """The real path of a directory that can be guarded."""
    if not path:
        raise GuardError("'': names no directory", "name the directory that holds the transcripts")
    plain = path.rstrip("/") or "/"
    try:
        found = os.lstat(plain)
    except FileNotFoundError:
        raise GuardError(f"{path}: no such directory", "create it, or check the path") from None
    except OSError as error:
        raise GuardError(f"{path}: {error.strerror}", "check the path and the rights on it") from None
    if stat.S_ISLNK(found.st_mode):
        raise GuardError(
            f"{path}: a symlink to {os.readlink(plain)}",
            f"name the real directory, {os.path.realpath(plain)}",
        )
    if not stat.S_ISDIR(found.st_mode):
        raise GuardError(f"{path}: not a directory", "name the directory that holds the transcripts")
    real = os.path.realpath(plain)
    if real == "/":
        raise GuardError("/: cannot be guarded", "name the directory that holds the transcripts")
    for guard in device.guards():
        if real == guard.path and device.is_guard(real):
            raise GuardError(
                f"{path}: guarded already",
                f"`guardfs status {path}` shows by whom, `guardfs unmount {path}` ends it",
            )
        if guard.path.startswith(real + "/"):
            raise GuardError(
                f"{path}: the guarded directory {guard.path} lies in it",
                "one guard is enough: unmount the inner one first",
            )
        if real.startswith(guard.path + "/"):
            raise GuardError(
                f"{path}: inside the guarded directory {guard.path}",
                "one guard is enough: name the outer one",
            )
    if os.geteuid() != 0 and not os.access(real, os.R_OK | os.W_OK | os.X_OK):
        raise GuardError(f"{path}: not yours to write", "run guardfs as its owner or as root")
    return real


def outside(path: str, sessions: str, what: str, option: str) -> str:
    """The real path of a file or directory of the guard's own; refused inside the directory that it
    guards.
    """
    real = os.path.realpath(path)
    if real == sessions or real.startswith(sessions + "/"):
        raise GuardError(
            f"{path}: {what} inside the guarded directory", f"choose a place outside {sessions} with {option}"
        )
    return real


def writable_file(path: str, what: str) -> None:
    """Refuse a file that cannot be appended to; it is not created yet."""
    parent = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise GuardError(f"{path}: a directory, not {what}", "name a file")
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise GuardError(f"{path}: not a regular file", f"name a regular file for {what}")
    if not os.path.isdir(parent):
        raise GuardError(f"{path}: no directory {parent}", "create it, or name another place")
    if not os.access(path if os.path.exists(path) else parent, os.W_OK):
        raise GuardError(f"{path}: cannot be written", f"choose another place for {what}")


def audit_log(path: str) -> None:
    """Refuse a file that cannot be appended to, or that holds something else than an audit log."""
    writable_file(path, "an audit log")
    if not os.path.exists(path):
        return
    try:
        with open(path, "rb") as file:
            first = file.readline(_FIRST_LINE)
    except OSError as error:
        raise GuardError(f"{path}: {error.strerror}", "choose another place with --audit") from None
    if first and link_of(first.rstrip(b"\n")) is None:
        raise GuardError(
            f"{path}: line 1 is not an event of an audit log",
            "name another file with --audit, or move this one away",
        )
