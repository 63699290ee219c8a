"""Finds the audit logs that a command is to read: the file it was given, or those of the guards that are
mounted."""

from __future__ import annotations

import os
from typing import NamedTuple

from guardfs.audit.chain import HEAD_NAME
from guardfs.cli.status import read_status
from guardfs.errors import GuardError
from guardfs.mount import device


class Log(NamedTuple):
    """One audit log. file: path; head: path of the chain's head if known; mount: where its guard is, if
    known."""

    file: str
    head: str | None
    mount: str | None


def find(directory: str | None = None, audit: str | None = None) -> list[Log]:
    """The logs of a command's ``[DIR] [--audit FILE]``: the file given, the log of DIR's guard, or those of
    all guards.

    Raises GuardError if there is none.
    """
    if audit is not None:
        if os.path.isdir(audit):
            raise GuardError(f"{audit}: is a directory", "give the file that the guard writes (its --audit)")
        return [Log(audit, None, None)]
    present = list(dict.fromkeys(guard.path for guard in device.guards()))
    if directory is not None:
        real = os.path.realpath(directory)
        above = [mount for mount in present if real == mount or real.startswith(mount.rstrip("/") + "/")]
        if not above:
            if not os.path.lexists(directory):
                raise GuardError(f"{directory}: no such directory", "name a directory that a guard is on")
            raise GuardError(
                f"{directory}: no guard is mounted there", "name its old log with --audit FILE, or mount it"
            )
        return [_log_of(max(above, key=len))]
    if not present:
        raise GuardError("no guard is mounted", "name a log with --audit FILE, or `guardfs mount DIR` first")
    logs: list[Log] = []
    last: GuardError | None = None
    for mount in present:
        try:
            logs.append(_log_of(mount))
        except GuardError as error:  # a dead guard shall not hide the living ones
            last = error
    if not logs and last is not None:
        raise last
    return logs


def _log_of(mount: str) -> Log:
    found = read_status(mount)
    audit, state = found.get("audit"), found.get("state")
    file = audit.get("file") if isinstance(audit, dict) else None
    if not isinstance(file, str) or not file:
        raise GuardError(f"{mount}: its guard keeps no audit log", "mount it with --audit FILE")
    directory = state.get("dir") if isinstance(state, dict) else None
    head = os.path.join(directory, HEAD_NAME) if isinstance(directory, str) else None
    return Log(file, head if head and os.path.exists(head) else None, mount)


def base(file: str) -> str:
    """The log that a rotated file belongs to."""
    name, _, number = file.rpartition(".")
    return name if number.isdecimal() else file
