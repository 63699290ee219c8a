"""The file under the log: whole lines or nothing, rotation, being replaced by others, a torn tail after a
kill.

One thread uses it. It knows nothing of events; the chain's place at the end of the file is all it reads.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import NamedTuple

from guardfs.audit.chain import START, Link, Place, digest, read_link
from guardfs.errors import GuardError

MODE = 0o600


class Tail(NamedTuple):
    """How a log ends. place: of its last line of ours. torn: the bytes after the last newline; whole: the size
    in bytes without them."""

    place: Place
    torn: bytes
    whole: int


class LogFile:
    """The open log at *path*, locked against a second guard. size: bytes up to which it holds whole lines of
    ours. inherited: whoever has it locked is the daemon that this one takes over from, dead but for a thread that
    hangs."""

    def __init__(self, path: str, keep: int) -> None:
        self.path = path
        self.inherited = False
        self.keep = keep
        self.size = 0
        self.inode = 0
        self._fd = -1

    def open(self) -> None:
        """Opens or creates the file; raises OSError, or GuardError where an operator has to mend
        something."""
        try:
            fd = os.open(
                self.path,
                os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW,
                MODE,
            )
        except OSError as error:
            raise _opening(self.path, error) from error
        try:
            self._adopt(fd)
        except BaseException:
            os.close(fd)
            raise

    def _adopt(self, fd: int) -> None:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise GuardError(f"{self.path}: not a regular file", "give --audit a file to write")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self.inherited:
                raise GuardError(
                    f"{self.path}: another guard writes this log", "give each guard its own --audit"
                ) from None
        except OSError:
            pass  # a file system without locks: then nobody can warn
        if (
            stat.S_IMODE(facts.st_mode) != MODE
        ):  # wider; or narrower, where it was made under a caller's umask
            os.fchmod(fd, MODE)
        self.close()
        self._fd, self.size, self.inode = fd, facts.st_size, facts.st_ino

    def lock(self) -> None:
        """Lock it, if a dead daemon had it locked until now."""
        if self.inherited and self._fd >= 0:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.inherited = False
            except OSError:
                pass

    def write(self, data: bytes) -> tuple[int, OSError | None]:
        """Appends whole lines. Returns how many bytes of whole lines stand now, and the error that kept the
        rest out.

        What was written of a line that did not fit is cut off again: a reader never finds half a line, unless
        the guard is killed within this call, which `recover` mends at the next start.
        """
        if self._fd < 0:
            return 0, OSError(9, "the log is not open")
        done, error = 0, None
        view = memoryview(data)
        try:
            while done < len(data):
                count = os.write(self._fd, view[done:])
                if count <= 0:
                    raise OSError(28, os.strerror(28))
                done += count
        except OSError as problem:
            error = problem
            whole = data.rfind(b"\n", 0, done) + 1
            if whole != done:
                try:
                    os.ftruncate(self._fd, self.size + whole)
                except OSError as second:
                    error = second
            done = whole
        self.size += done
        return done, error

    def changed(self) -> str | None:
        """What somebody else did to the file: ``replaced`` (renamed or removed), ``truncated``, ``grown``;
        None: nothing."""
        try:
            facts = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return "replaced"
        if facts.st_ino != self.inode or self._fd < 0:
            return "replaced"
        if facts.st_size == self.size:
            return None
        changed = "truncated" if facts.st_size < self.size else "grown"
        self.size = facts.st_size
        return changed

    def rotate(self) -> None:
        """``log`` becomes ``log.1``, ``log.1`` becomes ``log.2``, up to *keep*; a new file is begun. Raises
        OSError."""
        for number in range(self.keep - 1, 0, -1):
            try:
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            except FileNotFoundError:
                pass
        os.replace(self.path, f"{self.path}.1")
        try:
            self.open()
        except GuardError as error:
            raise OSError(5, str(error)) from error

    def sync(self) -> None:
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def tail(self) -> Tail:
        """How the file ends. Reads backwards, at most as far as the last line that can be read as ours."""
        return tail_of(self._fd, self.size)

    def cut(self, size: int) -> None:
        """Shortens the file to *size* bytes. Raises OSError."""
        os.ftruncate(self._fd, size)
        self.size = size


def tail_of(fd: int, size: int) -> Tail:
    """The `Tail` of the first *size* bytes of *fd*; raises OSError.

    Lines at the end that are none of ours (somebody wrote into the log) do not count: the chain goes on with
    the last of ours, and `verify` tells the others line by line.
    """
    at, text = size, b""
    while True:
        step = min(at, 65536)
        at -= step
        text = os.pread(fd, step, at) + text
        end = text.rfind(b"\n") + 1
        torn, lines = text[end:], text[:end].split(b"\n")[:-1]
        if at:
            lines = lines[1:]  # its beginning has not been read yet
        for line in reversed(lines):
            found = link_of(line)
            if found is not None:
                return Tail(Place(found.seq, digest(line)), torn, size - len(torn))
        if not at:
            return Tail(START, torn, size - len(torn))


def link_of(line: bytes) -> Link | None:
    """What binds *line* into the chain; None if it is no line of a log."""
    try:
        return read_link(line)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def _opening(path: str, error: OSError) -> OSError | GuardError:
    if isinstance(error, FileNotFoundError):
        return GuardError(f"{path}: its directory does not exist", f"mkdir -p {os.path.dirname(path) or '.'}")
    if isinstance(error, IsADirectoryError):
        return GuardError(f"{path}: is a directory", "give --audit a file to write")
    if isinstance(error, NotADirectoryError):
        return GuardError(f"{path}: a part of the path is not a directory", "give --audit a file to write")
    if isinstance(error, PermissionError):
        return GuardError(f"{path}: permission denied", "give --audit a file that this user may write")
    if error.errno == 40:  # ELOOP, from O_NOFOLLOW
        return GuardError(f"{path}: is a symbolic link", "give --audit the file itself")
    return GuardError(f"{path}: {error.strerror or error}", "give --audit a file on another file system")
