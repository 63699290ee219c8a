"""The users and groups of this machine."""

from __future__ import annotations

import grp
import pwd
from typing import Literal


def ids(kind: Literal["user", "group"], name: str) -> int | None:
    """The number of a user or group by its name; None if there is none."""
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except (KeyError, OSError, ValueError):
        return None
