"""Asks a running guard to do something: the other end of `guardfs.mount.control`."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec

from guardfs.audit.show import safe, short
from guardfs.cli.status import ago, guard_of
from guardfs.errors import GuardError

ATTRIBUTE = "user.guardfs.control"


def guard(path: str) -> str:
    """The guarded directory that *path* is or lies in. GuardError if there is none."""
    found = guard_of(path)
    if found is None:
        raise GuardError(f"{path}: not guarded", "`guardfs status` lists the guarded directories")
    return found


def ask(mountpoint: str, request: dict[str, Any]) -> dict[str, Any]:
    """The answer of the guard on *mountpoint*. GuardError where it gives none."""
    try:
        os.setxattr(mountpoint, ATTRIBUTE, msgspec.json.encode(request))
        answer: dict[str, Any] = msgspec.json.decode(os.getxattr(mountpoint, ATTRIBUTE))
        return answer
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise GuardError(
                f"{mountpoint}: its guard does not take this from user {os.geteuid()}",
                "run it as root, or as the user who mounted",
            ) from None
        if error.errno in (errno.EINVAL, errno.ENODATA, errno.EOPNOTSUPP):
            mend = "use the guardfs that is mounted there"
            raise GuardError(f"{mountpoint}: its guard does not know this request", mend) from None
        raise GuardError(
            f"{mountpoint}: the guard does not answer: {error.strerror}", "`guardfs status` says how it is"
        ) from None
    except msgspec.MsgspecError as error:
        raise GuardError(
            f"{mountpoint}: unreadable answer: {error}", "use the guardfs that is mounted there"
        ) from None


_WHY = {
    "fence": "its owner relies on the transcript",
    "linger": "the agent may look at its reply once more",
    "lock": "the transcript's lock is held",
    "failed": "it could not be rebased",
}


def waits(left: dict[str, Any], now: float) -> str:
    """One branch, or one file without its name, that waits still. now: seconds since the epoch."""
    why = str(left.get("error") or _WHY.get(left["why"], left["why"]))
    if "ghost" in left:
        return f"{short(left['path'])}  is {short(left['file'])} until its owner lets go: {safe(why)}"
    age = ago(max(0.0, now - left["opened_ns"] / 1e9))
    what = f"branch {left['branch']} of {safe(left['lane'])}, {left['bytes']:,} bytes, {age} old"
    return f"{short(left['path'])}  {what}: {safe(why)}"
