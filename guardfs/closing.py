"""Closing a descriptor for good."""

from __future__ import annotations

import os


def let_go(fd: int) -> None:
    """close(2) of a descriptor that nothing depends on any more. It is gone whatever the call says (close(2)), so an
    error of it must not look like one of what was done before."""
    try:
        os.close(fd)
    except OSError:
        pass
