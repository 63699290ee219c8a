"""Reading the log across its rotated files: forwards, and backwards for the last few events.

Lines are bytes here and may be anything; what is no JSON object is handed out as such, with its place, never
skipped.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple

import msgspec

from guardfs.audit.chain import VERSION
from guardfs.errors import GuardError

MAX_LINE = 64 << 20
"""Bytes after which a line is cut in two: no event is that long, and a file that is not a log may have no
newline."""

BLOCK = 1 << 16

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Line(NamedTuple):
    """One line of a log. file: path; number: from 1, or 0 where it is not known (read backwards);
    raw: without newline; whole: it had one; event: None if it is not a JSON object."""

    file: str
    number: int
    raw: bytes
    whole: bool
    event: dict[str, Any] | None

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}" if self.number else self.file


def decode(raw: bytes) -> dict[str, Any] | None:
    """The event of one line; None if it is not a JSON object."""
    try:
        return _decode(raw)
    except (ValueError, RecursionError):
        return None


def files_of(path: str) -> list[str]:
    """The files of the log at *path*, oldest first: ``path.N`` ... ``path.1``, ``path``. At least one of them
    exists.

    Raises GuardError if none does or *path* is no regular file.
    """
    directory, base = os.path.split(path)
    pattern = re.compile(re.escape(base) + r"\.([1-9][0-9]{0,5})")
    try:
        names = os.listdir(directory or ".")
    except OSError as error:
        raise _unreadable(path, error) from error
    numbers = sorted((int(m[1]) for m in map(pattern.fullmatch, names) if m), reverse=True)
    found = [f"{path}.{number}" for number in numbers]
    if base in names:
        found.append(path)
    if not found:
        raise GuardError(f"{path}: no such file", "give the file that the guard writes (its --audit)")
    return found


class Opened:
    """The files of one log, opened so that a rotation meanwhile neither hides a line nor shows one twice."""

    def __init__(self, path: str) -> None:
        self.files: list[tuple[str, BinaryIO]] = []
        seen: set[tuple[int, int]] = set()
        with ExitStack() as stack:
            # newest first: a rotation moves files towards higher numbers, where this has not looked yet
            for name in reversed(files_of(path)):
                try:
                    file = stack.enter_context(_open(name))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _unreadable(name, error) from error
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    raise GuardError(f"{name}: not a regular file", "give the file that the guard writes")
                if (facts.st_dev, facts.st_ino) not in seen:
                    seen.add((facts.st_dev, facts.st_ino))
                    self.files.append((name, file))
            self.files.reverse()
            _check(self.files)
            self._stack = stack.pop_all()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def lines(path: str) -> Iterator[Line]:
    """Every line of the log at *path*, oldest first. Raises GuardError if it cannot be read or is no log of a
    guard."""
    with Opened(path) as opened:
        for name, file in opened.files:
            yield from _lines_of(name, file)


def events(path: str) -> Iterator[Line]:
    """As `lines`, without an unfinished line at the very end: a live log may be caught in the middle of a
    write."""
    held: Line | None = None
    for line in lines(path):
        if held is not None:
            yield held
        held = line
    if held is not None and (held.whole or held.event is not None):
        yield held


def events_backward(path: str) -> Iterator[Line]:
    """Every whole line of the log, newest first, without line numbers; for the last few of a long log."""
    with Opened(path) as opened:
        for name, file in reversed(opened.files):
            rest = b""
            at = os.fstat(file.fileno()).st_size
            newest = True
            while at:
                step = min(at, BLOCK)
                at -= step
                parts = (os.pread(file.fileno(), step, at) + rest).split(b"\n")
                rest = parts.pop(0)
                if newest and parts:
                    parts.pop()  # behind the last newline
                    newest = False
                for raw in reversed(parts):
                    yield Line(name, 0, raw, True, decode(raw))
            if rest and not newest:
                yield Line(name, 0, rest, True, decode(rest))


def _lines_of(name: str, file: BinaryIO) -> Iterator[Line]:
    number = 0
    while raw := file.readline(MAX_LINE):
        number += 1
        whole = raw.endswith(b"\n")
        text = raw[:-1] if whole else raw
        yield Line(name, number, text, whole, decode(text))


def _open(name: str) -> BinaryIO:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return os.fdopen(fd, "rb", BLOCK)


def _check(files: list[tuple[str, BinaryIO]]) -> None:
    """Raises GuardError unless one of the first lines is an event: then the file is a log, if perhaps a
    damaged one."""
    for name, file in files:
        number, strange = 0, None
        while number < 5 and (raw := file.readline(BLOCK)):
            number += 1
            event = decode(raw)
            if event is not None and {"v", "seq", "prev", "op"} <= event.keys():
                if isinstance(event["v"], int) and event["v"] > VERSION:
                    raise GuardError(
                        f"{name}:{number}: written by a newer guardfs (v {event['v']})", "upgrade guardfs"
                    )
                strange = None
                break
            strange = strange or number
        else:
            if strange is not None and os.fstat(file.fileno()).st_size:
                raise GuardError(
                    f"{name}:{strange}: not an audit log of guardfs", "give the file written with --audit"
                )
        file.seek(0)


def _unreadable(path: str, error: OSError) -> GuardError:
    if isinstance(error, PermissionError):
        return GuardError(f"{path}: permission denied", "read the log as the user who mounted, or as root")
    if isinstance(error, FileNotFoundError):
        return GuardError(f"{path}: no such file", "give the file that the guard writes (its --audit)")
    return GuardError(f"{path}: {error.strerror}", "give the file that the guard writes (its --audit)")


def number_of(line: Line) -> int | None:
    """The number of a line that was read backwards: that of the last line with these bytes in its file."""
    found = None
    try:
        with _open(line.file) as file:
            for other in _lines_of(line.file, file):
                if other.raw == line.raw:
                    found = other.number
    except OSError:
        return None
    return found
