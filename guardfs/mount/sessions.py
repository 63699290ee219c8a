"""Follows the agent's registry of sessions, so that events name sessions as the agent does.

The registry is rewritten several times a turn, by rename, and can be large. So a thread reads it, when it is told
to (`touch`) and, for changes made below the mount, when a look once a second finds another file. It parses piece by
piece and rests in between, so that no request waits for the interpreter. A registry that is broken, half-written
or missing changes nothing: the last good one stays.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable

from guardfs.lanes.registry import find_key, read_registry

log = logging.getLogger("guardfs.mount")

POLL = 1.0
"""Seconds between two looks, each an open and an fstat: next to nothing, so it is done whether anybody asks or not."""

PAUSE = 0.1
"""Seconds between two reads."""

LARGE = 4 << 20
LARGE_PAUSE = 5.0
"""Bytes from which on a registry is read less often, and seconds between two such reads."""

MAX_BYTES = 64 << 20
"""A larger registry is not read."""

REST = 0.001
"""Seconds that the thread rests after each piece."""

YOUNG_NS = 20_000_000
"""A file changed less than this before it was read is looked at again: a later change could bear the same time."""

REMEMBERED = 10_000
"""Transcripts that have left the registry and whose session is still known: archives bear their names."""

_ANSWERS = 4096
_ABSENT = object()

_Look = tuple[int, int, int, int, int]


class _Known:
    """One state of the registry. Never changed but for *answers*, which only fills up."""

    __slots__ = ("answers", "names", "sessions")

    def __init__(self, names: dict[bytes, str]) -> None:
        self.names = names
        self.sessions = len(set(names.values()))
        self.answers: dict[bytes, str | None] = {}


class Sessions:
    """The registry of one mount. `touch`, `key_of` and `generation` are for any thread, and never block.

    open_registry: a new descriptor of the file below the mount, opened for reading with O_NONBLOCK; OSError if there
    is none. file: its name, for status. generation: grows after each change of what `key_of` may answer.
    """

    def __init__(self, open_registry: Callable[[], int], file: str = "sessions.json") -> None:
        self._open = open_registry
        self.file = file
        self.generation = 0
        self._known = _Known({})
        self._left: dict[bytes, str] = {}  # written by the thread alone; the oldest first
        self._look: _Look | None = None
        self._missing = True
        self._untouched = True
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._reads = 0
        self._broken = 0
        self._error = ""
        self._read_ns = 0
        self._thread = threading.Thread(target=self._run, name="guardfs-sessions", daemon=True)

    def start(self) -> None:
        """Begin, with a first read."""
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """End; waits for the thread unless the file system hangs."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def touch(self) -> None:
        """The registry was written, or another file is in its place."""
        if self._untouched:
            self._untouched = False
            self._wake.set()

    def key_of(self, name: bytes) -> str | None:
        """The session of the transcript *name* (no directories), of its lock or of an archive of it; None: unknown."""
        known = self._known
        answer = known.answers.get(name, _ABSENT)
        if answer is not _ABSENT:
            return answer  # type: ignore[return-value]
        if len(known.answers) >= _ANSWERS:
            known.answers = {}
        key = known.answers[name] = find_key(name, known.names, self._left)
        return key

    def stats(self) -> dict[str, object]:
        """For status. sessions: keys in force. reads: times that it was read. broken: of these, and of the times that
        it went missing, those that changed nothing. error: what is wrong now, or "". read_ns: when it was last read
        well, since the epoch, 0 for never."""
        return {
            "file": self.file,
            "sessions": self._known.sessions,
            "reads": self._reads,
            "broken": self._broken,
            "error": self._error,
            "read_ns": self._read_ns,
        }

    # ---- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            touched = self._wake.wait(POLL)
            self._wake.clear()
            self._untouched = True  # before the read: what is written from here on touches again
            if self._closing.is_set():
                return
            pause = 0.0
            try:
                pause = self._check(touched)
            except Exception:  # names of sessions are not worth a thread
                log.exception("following the registry")
                self._error = "internal error; see the guard's messages"
            if pause:
                self._closing.wait(pause)

    def _check(self, touched: bool) -> float:
        """Look, and read what has changed. Seconds until the next read."""
        try:
            fd = self._open()
        except OSError as error:
            self._gone(error)
            return PAUSE if touched else 0.0
        try:
            st = os.fstat(fd)
            look = _look(st)
            if look == self._look:
                return 0.0
            self._missing = False
            if not stat.S_ISREG(st.st_mode):
                return self._bad(look, "is no regular file")
            if st.st_size > MAX_BYTES:
                return self._bad(look, f"has more than {MAX_BYTES >> 20} MiB")
            data = _contents(fd, st.st_size)
            young = 0 <= time.time_ns() - max(st.st_mtime_ns, st.st_ctime_ns) < YOUNG_NS
            settled = look if not young and _look(os.fstat(fd)) == look else None
        except OSError as error:
            return self._bad(None, error.strerror or str(error))
        finally:
            os.close(fd)
        self._reads += 1
        names = read_registry(data, self._rest)
        if names is None:
            self._bad(settled, "is not a whole JSON object" if data else "is empty")
        else:
            self._look, self._error, self._read_ns = settled, "", time.time_ns()
            self._publish(names)
        return PAUSE if len(data) <= LARGE else LARGE_PAUSE

    def _rest(self) -> None:
        time.sleep(REST)

    def _publish(self, names: dict[bytes, str]) -> None:
        """Put *names* into force, if they are others."""
        before = self._known.names
        if names == before:
            return
        for name in before.keys() - names.keys():
            self._left.pop(name, None)
            self._left[name] = before[name]
        while len(self._left) > REMEMBERED:
            del self._left[next(iter(self._left))]
        self._known = _Known(names)
        self.generation += 1  # last: whoever sees it finds the names, too

    def _bad(self, look: _Look | None, reason: str) -> float:
        self._look = look
        self._broken += 1
        self._error = f"{self.file}: {reason}"
        return PAUSE

    def _gone(self, error: OSError) -> None:
        """There is none: as long as there never was one, that is how a new agent begins."""
        missing, self._missing = self._missing, True
        self._look = None
        self._error = f"{self.file}: {error.strerror or error}"
        if not missing:
            self._broken += 1


def _look(st: os.stat_result) -> _Look:
    return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def _contents(fd: int, size: int) -> bytes:
    """All of the file, up to `MAX_BYTES`; it may grow meanwhile."""
    parts = []
    left = MAX_BYTES
    while left > 0 and (part := os.read(fd, min(left, max(size + 1, 4096)))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
