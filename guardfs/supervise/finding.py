"""Directories that a pattern finds, now and later: `guardfs run --sessions 'agents/*/sessions'`.

A look is slow and cheap: the listed directories are read once a second. That is soon enough, since a mount waits for a
quiet moment anyway, in which nothing has come or gone for a second.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Sequence

from guardfs.errors import GuardError
from guardfs.mount import device
from guardfs.supervise.guard import Settings
from guardfs.supervise.say import say

LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 10.0
"""After which a directory that could not be guarded is tried again."""

_MAGIC = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    """Whether *text* is a pattern, and not the name of something that is there."""
    return bool(_MAGIC.search(text)) and not os.path.lexists(text)


def absolute(pattern: str) -> str:
    """*pattern* from the root on; a ``~/`` too, which no shell expands in quotes."""
    return os.path.abspath(os.path.expanduser(pattern))


def matches(pattern: str) -> list[str]:
    """The directories that *pattern* names, sorted; those below a dead mount of a guard's as well. As in a shell, a
    name that begins with a dot is found by a pattern that does.
    """
    found = ["/"]
    for part in absolute(pattern).split("/")[1:]:
        if not _MAGIC.search(part):
            found = [os.path.join(each, part) for each in found]
            continue
        found = [
            os.path.join(each, name)
            for each in found
            for name in _listed(each)
            if fnmatch.fnmatchcase(name, part) and name.startswith(".") == part.startswith(".")
        ]
    return sorted(path for path in found if _is_directory(path))


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _is_directory(path: str) -> bool:
    """Whether it is one itself: a link to a directory is another name for what may be guarded already."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError as error:
        return error.errno in device.DEAD


class Finder:
    """Looks for directories to guard. settings_of: makes the settings of a guard of one; raises GuardError. due: on the
    monotonic clock, when to look again.
    """

    def __init__(self, patterns: Sequence[str], settings_of: Callable[[str], Settings]) -> None:
        self.patterns = [absolute(pattern) for pattern in patterns]
        self.due = 0.0
        self._settings_of = settings_of
        self._found: set[str] = set()
        self._left: dict[str, tuple[int, int]] = {}
        self._failed: dict[str, tuple[float, str]] = {}

    def now(self) -> list[str]:
        """The real paths of the directories that are there at this moment."""
        present = [os.path.realpath(path) for pattern in self.patterns for path in matches(pattern)]
        self._found.update(present)
        return list(dict.fromkeys(present))

    def look(self, guarded: Collection[str]) -> list[Settings]:
        """What is new since the last look, and not among *guarded*."""
        self.due = time.monotonic() + LOOK_SECONDS
        present = self.now()
        for path in set(self._left) - {path for path in present if _identity(path) == self._left.get(path)}:
            del self._left[path]
        found = []
        for path in present:
            if (
                path in guarded
                or path in self._left
                or self._failed.get(path, (0.0, ""))[0] > time.monotonic()
            ):
                continue
            if device.is_guard(path):
                continue  # somebody else's
            try:
                found.append(self._settings_of(path))
            except (GuardError, OSError) as error:
                self.failed(path, error)
        return found

    def found(self, path: str) -> bool:
        """Whether a look has found *path* (a real one), and not the operator named it."""
        return path in self._found

    def failed(self, path: str, error: Exception) -> None:
        """A guard could not be put there: said once, tried again later."""
        text = str(error) if isinstance(error, GuardError) else f"{path}: cannot be guarded: {error}"
        if self._failed.get(path, (0.0, ""))[1] != text:
            say(f"{text} (tried again every {_AGAIN_SECONDS:g} s)")
        self._failed[path] = (time.monotonic() + _AGAIN_SECONDS, text)

    def left(self, path: str) -> None:
        """A guard has ended there: that was somebody's will, and it is not put there again, until the directory is
        another one.
        """
        identity = _identity(path)
        if identity is not None:
            self._left[path] = identity


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
