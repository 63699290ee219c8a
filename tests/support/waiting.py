"""Waiting for a condition, with a deadline that fails the test instead of hanging it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(ready: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true result of *ready*; TimeoutError naming *what* if there is none in *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        found = ready()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for: {what}")
        time.sleep(0.01)
