"""What this machine can do, for tests that must be skipped elsewhere; and how much time there is."""

from __future__ import annotations

import os
import shutil

FULL = bool(os.environ.get("GUARDFS_FULL"))
"""Whether the long tests run with their long counts (`scripts/test --full`)."""

STRANGER = 64012
"""A user and group id that no account has: the other user of the tests."""


def cannot_mount() -> str:
    """Why nothing can be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"needs /dev/fuse: {error.strerror}"
    return ""


def cannot_browse() -> str:
    """Why no page can be opened here; empty if one can."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(missing)}" if missing else ""
