"""The process that serves metrics and the page beside the daemons (`guardfs.serve`), held by the supervisor.

It is begun once the directories answer, and again, after a while, whenever it ends: nothing of a guard depends on it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from guardfs.serve.plan import Known, Plan, encode_guards, encode_plan
from guardfs.supervise.say import ending, say

_FIRST_DELAY = 1.0
_LAST_DELAY = 60.0
"""Seconds until it is begun again: twice as long each time that it ends soon, up to the last."""

_PIPE = 1 << 20
"""Bytes that may lie ready for it: it is told of thousands of guards in one go, and nobody waits until it reads."""

_END_SECONDS = 6.0
"""To end by itself: longer than it gives to answers under way."""


class Observer:
    """One such process. due: when `step` wants to be called, on the monotonic clock."""

    def __init__(self, plan: Plan) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.due: float | None = None
        self._plan = plan
        self._known: list[Known] = []
        self._delay = _FIRST_DELAY
        self._begun = 0.0
        self._ended = False

    def step(self, known: Sequence[Known]) -> None:
        """Begin it, or again if it has ended and it is time to; tell it which guards there are now."""
        if self._ended:
            return
        if self.process is not None and (status := self.process.poll()) is not None:
            self._close()
            if time.monotonic() - self._begun > _LAST_DELAY:
                self._delay = _FIRST_DELAY
            again = self._later()
            say(
                f"what serves metrics and page ended with {ending(status)}; begun again in {again:g} s, "
                "and the guard goes on"
            )
        if self.process is None and (self.due is None or time.monotonic() >= self.due):
            self._begin(known)
        elif list(known) != self._known and self.process is not None:
            self._known = list(known)
            self._write(encode_guards(known))

    def end(self) -> None:
        """Tell it to end; `wait` for that later."""
        self._ended, self.due = True, None
        if self.process is not None:
            self.process.terminate()

    def wait(self) -> None:
        """Until it has ended, killed if it takes long."""
        if self.process is None:
            return
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close()

    def _later(self) -> float:
        """Begin it after a while; how many seconds."""
        delay = self._delay
        self.due, self._delay = time.monotonic() + delay, min(2 * delay, _LAST_DELAY)
        return delay

    def _begin(self, known: Sequence[Known]) -> None:
        self.due, self._begun, self._known = None, time.monotonic(), list(known)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "guardfs.serve.supervised"],
                stdin=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the supervisor's to handle
                cwd="/",
            )
        except OSError as error:
            self._later()
            say(f"what serves metrics and page cannot be started: {error.strerror}; the guard goes on")
            return
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        try:
            fcntl.fcntl(self.process.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:  # an ordinary user has had too many; 64 kB hold some hundred guards
            pass
        self._write(encode_plan(self._plan) + encode_guards(known))

    def _write(self, data: bytes) -> None:
        """Where it does not listen it is ended, and told everything when it is begun again."""
        if self.process is None or self.process.stdin is None:
            return
        try:
            if os.write(self.process.stdin.fileno(), data) < len(data):
                self.process.terminate()
        except BlockingIOError:
            self.process.terminate()
        except OSError:  # it has ended: `step` will see that
            pass

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
