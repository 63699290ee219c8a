"""Processes that work in a guarded directory until they are told to stop, and bear no error of it.

    python -m tests.support.steady NAME DIRECTORY WORKER STOP

Each step that has returned is told on standard output as its number; any error that a plain directory would not give,
as ``errno NUMBER WHAT``, and ends it. They stop when the file STOP is there, which lies outside of the directory.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SHARED = "shared.jsonl"
LOCK = f"{SHARED}.lock"


def _numbers(stop: Path) -> Iterator[int]:
    number = 0
    while number % 8 or not stop.exists():
        yield number
        os.write(1, b"%d\n" % number)
        number += 1


def _line(worker: str, number: int) -> bytes:
    return f'{{"type":"message","worker":"{worker}","number":{number},"pad":"{"z" * (number * 37 % 300)}"}}\n'.encode()


def append(directory: Path, worker: str, stop: Path) -> None:
    """Appends to a file of its own through one descriptor."""
    fd = os.open(directory / f"{worker}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in _numbers(stop):
        line = _line(worker, number)
        assert os.write(fd, line) == len(line)
    os.close(fd)


def synced(directory: Path, worker: str, stop: Path) -> None:
    """The same, each write brought to the disk before it returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC
    fd = os.open(directory / f"{worker}.jsonl", flags, 0o644)
    for number in _numbers(stop):
        line = _line(worker, number)
        assert os.write(fd, line) == len(line)


def cycle(directory: Path, worker: str, stop: Path) -> None:
    """Lock cycles on one transcript, against others that do the same: nobody else is ever inside."""
    path, lock = directory / SHARED, directory / LOCK
    for number in _numbers(stop):
        while True:
            try:
                fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                break
            except FileExistsError:
                continue
        os.write(fd, b'{"pid":%d,"worker":"%s"}' % (os.getpid(), worker.encode()))
        os.close(fd)
        before = path.stat()
        with path.open("ab", buffering=0) as file:
            file.write(_line(worker, number))
        after = path.stat()
        assert after.st_size == before.st_size + len(_line(worker, number)), "somebody else was inside"
        assert lock.read_bytes().endswith(b'"worker":"%s"}' % worker.encode()), "another's lock"
        os.unlink(lock)


def juggle(directory: Path, worker: str, stop: Path) -> None:
    """Names that come and go; each call must have its effect once, and say so truly."""
    home = directory / f"home-{worker}"
    for number in _numbers(stop):
        os.mkdir(home)
        first, second, third = home / "first", home / "second", home / "third"
        fd = os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b"%d" % number)
        os.rename(first, second)
        os.link(second, third)
        assert os.fstat(fd).st_nlink == 2
        os.unlink(second)
        os.write(fd, b" more")
        os.truncate(third, 3)
        os.setxattr(third, "user.number", b"%d" % number, os.XATTR_CREATE)
        assert os.getxattr(third, "user.number") == b"%d" % number
        os.removexattr(third, "user.number")
        os.symlink("third", first)
        assert third.read_bytes() == (b"%d more" % number)[:3]
        assert sorted(os.listdir(home)) == ["first", "third"]
        os.unlink(first)
        os.unlink(third)
        os.ftruncate(fd, 1)
        assert os.fstat(fd).st_size == 1 and os.fstat(fd).st_nlink == 0
        os.close(fd)
        os.rmdir(home)


def read(directory: Path, worker: str, stop: Path) -> None:
    """Reads, through one descriptor, what others append: it only grows."""
    path = directory / SHARED
    fd = os.open(path, os.O_RDONLY)
    seen = b""
    for _ in _numbers(stop):
        data = os.pread(fd, 1 << 20, 0)
        assert data.startswith(seen[:4096]) and len(data) >= min(len(seen), 1 << 20)
        seen = data


def main() -> int:
    """Entry point."""
    name, directory, worker, stop = sys.argv[1:]
    try:
        globals()[name](Path(directory), worker, Path(stop))
    except OSError as error:
        os.write(1, f"errno {errno.errorcode.get(error.errno or 0)} {error}\n".encode())
        return 1
    except AssertionError as error:
        import traceback

        os.write(1, f"wrong {error} {traceback.format_exc().splitlines()[-3:]}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
