"""Transcripts as an OpenClaw-like gateway writes them: records, the lock file, the fingerprint."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Fingerprint = tuple[int, int, int, int, int] | None
"""Device, inode, size, mtime and ctime in ns; None while the transcript does not exist."""

_PR_SET_NAME = 15  # linux/prctl.h
LOCK_DEADLINE = 20.0  # seconds; cycles take milliseconds, so whoever waits this long waits for a dead process


def name_thread(name: str) -> None:
    """Give the calling thread a name (at most 15 bytes) that others can see; Python before 3.14 does not."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def fingerprint(path: str) -> Fingerprint:
    """What the gateway remembers of a transcript while its lock is away."""
    try:
        st = os.stat(path)
    except FileNotFoundError:
        return None
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}Z"


def header(session: str) -> dict[str, Any]:
    return {"type": "session", "version": 3, "id": session, "timestamp": now(), "cwd": "/"}


def message(
    role: str, text: str, parent: str | None, record_id: str | None = None, **more: str
) -> dict[str, Any]:
    """A message record; *record_id* defaults to the eight hex digits that the run itself uses."""
    body = {"role": role, "content": [{"type": "text", "text": text}], **more}
    return {
        "type": "message",
        "id": record_id or secrets.token_hex(4),
        "parentId": parent,
        "timestamp": now(),
        "message": body,
    }


def append(path: str, record: dict[str, Any]) -> str:
    """Append one record with one write call; return its id."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, json.dumps(record, separators=(",", ":")).encode() + b"\n")
    finally:
        os.close(fd)
    return str(record["id"])


def read(path: str, offset: int = 0) -> list[dict[str, Any]]:
    """The records from *offset* (bytes) on."""
    with open(path, "rb") as file:
        file.seek(offset)
        return [json.loads(line) for line in file.read().splitlines()]


def leaf(path: str) -> str:
    """The id of the last record: what a well-behaved writer continues from."""
    return str(read(path)[-1]["id"])


def start_time() -> int:
    """When this process began, clock ticks after boot: field 22 of its stat."""
    with open("/proc/self/stat", encoding="ascii") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


@contextmanager
def lock_cycle(path: str, run: Callable[[Callable[[], Any]], Any] = lambda call: call()) -> Iterator[None]:
    """Hold the transcript's lock file, with the calls that OpenClaw makes. *run* chooses the thread for them."""
    lock = path + ".lock"
    body = json.dumps({"pid": os.getpid(), "createdAt": now(), "starttime": start_time()}).encode()

    def take() -> int:
        deadline = time.monotonic() + LOCK_DEADLINE
        while True:
            try:
                fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_TRUNC, 0o600)
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(
                    0.002
                )  # as the real one does: there is nothing to wait on, the lock is only a name
                continue
            os.write(fd, body)
            os.fstat(fd)
            return fd

    def release(fd: int) -> None:
        os.close(fd)
        os.lstat(lock)
        with open(lock, "rb") as file:  # is it still mine?
            assert file.read() == body
        os.lstat(lock)
        os.lstat(lock)
        os.unlink(lock)

    fd = run(take)
    try:
        yield
    finally:
        run(lambda: release(fd))
