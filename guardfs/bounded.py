"""Looking at what may hang: a call on a mount whose daemon does not answer cannot be interrupted, only left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SECONDS = 3.0
"""A guard answers within milliseconds, or hangs."""


class _Call(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)  # it may never end, and must not keep the process
        self._work = work
        self.result: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result.append(self._work())
        except Exception as error:
            self.error = error


def bounded(work: Callable[[], T], seconds: float = SECONDS) -> T:
    """The result of *work*; what it raises, and TimeoutError after *seconds*."""
    call = _Call(work)
    call.start()
    call.join(seconds)
    if call.error is not None:
        raise call.error
    if not call.result:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return call.result[0]
