"""Guarded directories as they are seen from beside their daemons.

All that is asked of a daemon are extended attributes of its mount's root, each in a thread, and nobody waits for that
longer than `ANSWER_SECONDS`: a daemon that hangs keeps one thread, and nothing else. No other call here touches a
mount.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import trio

from guardfs.errors import GuardError
from guardfs.mount import device, libc
from guardfs.serve.plan import Known
from guardfs.state.directory import default_state_dir
from guardfs.state.guarded import recall_at

STATUS = "user.guardfs.status"
COUNTERS = "user.guardfs.counters"

ANSWER_SECONDS = 2.0
"""How long a daemon may take to answer: it does so within milliseconds, or hangs."""

FRESH_SECONDS = 1.0
"""How long an answer serves everybody who asks."""

_LOOK_SECONDS = 1.0
"""Between two looks at the mount table."""

_NO_GUARD = {
    errno.ENODATA: "not guarded",
    errno.EOPNOTSUPP: "not guarded",
    errno.ENOENT: "no such directory",
    errno.ENOTCONN: "its daemon is dead",
    errno.ECONNABORTED: "its daemon is dead",
}


class Question:
    """One attribute of a mount's root, asked for at most once a second, and by one thread at a time.

    trouble: why there is no answer, None if there is one.
    """

    def __init__(self, path: str, attribute: str) -> None:
        self.trouble: str | None = "not asked yet"
        self._path = path
        self._attribute = attribute
        self._answer: dict[str, Any] | None = None
        self._asked = float("-inf")
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def ask(self) -> dict[str, Any] | None:
        """The answer, at most `FRESH_SECONDS` old; None if there is none."""
        async with self._turn:
            if trio.current_time() - self._asked >= FRESH_SECONDS:
                self._answer = await self._read()
                self._asked = trio.current_time()
            return self._answer

    async def _read(self) -> dict[str, Any] | None:
        if self._thread.borrowed_tokens:  # the thread that asked before still waits
            return None
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                value = await trio.to_thread.run_sync(
                    libc.getxattr, self._path, self._attribute, abandon_on_cancel=True, limiter=self._thread
                )
                answer = msgspec.json.decode(value)
            except OSError as error:
                self.trouble = _NO_GUARD.get(error.errno or 0, f"does not answer: {error.strerror}")
                return None
            except msgspec.MsgspecError:
                answer = None
            if isinstance(answer, dict):
                self.trouble = None
                return answer
            self.trouble = "its answer cannot be read: is a guardfs of another version mounted there?"
            return None
        self.trouble = f"does not answer within {ANSWER_SECONDS:g} s"
        return None


class Guard:
    """One guarded directory, whether its guard answers or not.

    name: short, unique, the same after a restart, and fit for an address. sessions: real path of the directory. state,
    audit: its state directory and its log; audit is None as long as nobody has said where that is.
    """

    def __init__(self, known: Known) -> None:
        self.sessions = known.sessions
        self.name = os.path.basename(default_state_dir(known.sessions))
        self.state = known.state or default_state_dir(known.sessions)
        self.audit = known.audit
        self._status = Question(known.sessions, STATUS)
        self._counters = Question(known.sessions, COUNTERS)
        if self.audit is None:
            self._recall()

    @property
    def trouble(self) -> str | None:
        """Why there is no status, in words; None if there was one when it was last asked for."""
        return self._status.trouble

    async def status(self) -> dict[str, Any] | None:
        """What the guard says of itself, at most a second old (see `guardfs.mount.status`); None if it does not
        answer."""
        found = await self._status.ask()
        if found is not None:
            self.state = _told(found, "state", "dir") or self.state
            self.audit = _told(found, "audit", "file") or self.audit
        return found

    async def counters(self) -> dict[str, Any] | None:
        """What its daemon has counted (see `guardfs.mount.counters`), in the same way."""
        return await self._counters.ask()

    @property
    def readable(self) -> str:
        """The directory as text that can be shown and sent: what is not UTF-8 as backslash escapes."""
        return os.fsencode(self.sessions).decode("utf-8", "backslashreplace")

    def _recall(self) -> None:
        """The log of a guard that does not answer: as its last mount has noted it."""
        try:
            found = recall_at(self.state)
        except GuardError:
            return
        if found is not None and os.fsdecode(found.sessions) == self.sessions:
            self.audit = os.fsdecode(found.audit)


def _told(status: dict[str, Any], section: str, key: str) -> str | None:
    found = status.get(section)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


class Guards:
    """The guarded directories, in the order of their paths.

    found: says which they are now; asked again and again while `keep` runs. closing: set when the server is about to
    end, so that answers without an end can end in time.
    """

    def __init__(self, found: Callable[[], Iterable[Known]]) -> None:
        self.closing = trio.Event()
        self._found = found
        self._guards: dict[str, Guard] = {}
        self.look()

    def __iter__(self) -> Iterator[Guard]:
        return iter(list(self._guards.values()))

    def __len__(self) -> int:
        return len(self._guards)

    def get(self, name: str) -> Guard | None:
        """The guard of that name."""
        return next((guard for guard in self if guard.name == name), None)

    def look(self) -> None:
        """Find out which there are."""
        known = sorted(self._found(), key=lambda each: each.sessions)
        self._guards = {each.sessions: self._guards.get(each.sessions) or Guard(each) for each in known}

    async def keep(self) -> None:
        """Look from time to time, for ever."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            self.look()


def mounted() -> list[Known]:
    """All guards in the mount table."""
    return [Known(path) for path in dict.fromkeys(entry.path for entry in device.guards())]


def guarded_path(directory: str) -> str:
    """The real path of *directory*, which a guard may hang on: nothing in it, and not itself, is touched if one is
    there. GuardError if there is no such directory."""
    plain = os.path.abspath(directory)
    if plain in {known.sessions for known in mounted()}:
        return plain
    real = os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain))
    if real in {known.sessions for known in mounted()}:
        return real
    real = os.path.realpath(plain)
    if not os.path.isdir(real):
        raise GuardError(f"{directory}: no such directory", "name a directory that is guarded, or will be")
    return real
