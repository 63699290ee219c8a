"""Descriptors of this process: a test leaves as many open as it has found."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors() -> int:
    """How many there are."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def none_left_open() -> Iterator[None]:
    """In the end there are as many as in the beginning."""
    gc.collect()  # what an earlier test has dropped is not to be closed in the middle of this one
    before = open_descriptors()
    yield
    assert open_descriptors() == before, "descriptors left open"
