"""What is measured. All times are wall clock, in microseconds; what a function creates, it removes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]

FLAGS = {
    "rdonly": os.O_RDONLY,
    "wronly": os.O_WRONLY,
    "rdwr": os.O_RDWR,
    "creat": os.O_CREAT,
    "excl": os.O_EXCL,
    "trunc": os.O_TRUNC,
    "append": os.O_APPEND,
    "nofollow": os.O_NOFOLLOW,
    "directory": os.O_DIRECTORY,
    "nonblock": os.O_NONBLOCK,
}
"""Names of open flags in a trace; others (cloexec) change nothing here."""

READ_SIZE = 8192
"""A recorded read tells what it got, not what it asked for; Node asks for 8 KiB at least."""

LOCK = b'{\n  "pid": 4102,\n  "createdAt": "2026-05-23T03:37:47.123Z",\n  "starttime": 5079800\n}\n'
"""What OpenClaw writes into a lock file: 83 to 85 bytes."""

FILES = 10_000
START_SECONDS = 60.0


def load(trace: Path) -> list[Event]:
    """The events of a trace; see tests/traces/README.md."""
    with trace.open() as lines:
        return [json.loads(line) for line in lines]


@dataclass
class Kind:
    """One kind of operation in a replay: how many, and how long together (seconds)."""

    count: int = 0
    seconds: float = 0.0


def replay(root: str, events: list[Event]) -> dict[str, Kind]:
    """Perform *events* in *root*, one after another without pauses; the time of each system call, by kind.

    What fails does so as it did when it was recorded (or because a file of before the recording is not
    there): the
    time counts, the error does not matter.
    """
    spent: dict[str, Kind] = {}
    held: dict[str, list[int]] = {}
    clock = time.perf_counter
    for event in events:
        call = _call(root, event, held)
        if call is None:
            continue
        begin = clock()
        try:
            call()
        except (OSError, LookupError):
            pass
        took = clock() - begin
        kind = spent.setdefault(event["op"], Kind())
        kind.count += 1
        kind.seconds += took
    for descriptors in held.values():
        for descriptor in descriptors:
            os.close(descriptor)
    for name in os.listdir(root):
        os.unlink(os.path.join(root, name))
    return spent


def _call(root: str, event: Event, held: dict[str, list[int]]) -> Callable[[], object] | None:
    """The system call that *event* tells of; *held*: open descriptors by path, the latest last."""
    op, name, size = event["op"], event["path"], event.get("bytes") or 0
    path = os.path.normpath(os.path.join(root, name))
    if op == "open":
        flags = 0
        for flag in event["flags"]:
            flags |= FLAGS.get(flag, 0)
        return lambda: held.setdefault(name, []).append(os.open(path, flags, 0o600))
    if op == "write":
        data = (event.get("head") or "").encode()[:size].ljust(size)
        return lambda: os.write(held[name][-1], data)
    if op == "chmod":
        mode = 0o755 if name == "." else 0o600
        return lambda: os.chmod(path, mode)
    if op == "rename":
        target = os.path.join(root, event["to"])
        return lambda: os.rename(path, target)
    calls: dict[str, Callable[[], object]] = {
        "close": lambda: os.close(held[name].pop()),
        "read": lambda: os.read(held[name][-1], max(size, READ_SIZE)),
        "fstat": lambda: os.fstat(held[name][-1]),
        "stat": lambda: os.stat(path),
        "lstat": lambda: os.lstat(path),
        "readdir": lambda: os.listdir(path),
        "unlink": lambda: os.unlink(path),
        "mkdir": lambda: os.mkdir(path),
        "access": lambda: os.access(path, os.F_OK),
        "readlink": lambda: os.readlink(path),
    }
    return calls.get(op)


def append(root: str, writers: int, count: int) -> list[float]:
    """*writers* processes at once, each appending *count* records to its own transcript: every write's time."""
    context = multiprocessing.get_context("fork")  # nothing to import: all begin within a millisecond
    barrier = context.Barrier(writers, timeout=START_SECONDS)
    paths = [os.path.join(root, f"{n:08x}-0000-4000-8000-000000000000.jsonl") for n in range(writers)]
    running = []
    for path in paths:
        results, answer = context.Pipe(duplex=False)
        process = context.Process(target=_append, args=(path, count, barrier, answer), daemon=True)
        process.start()
        answer.close()  # the child's end alone stays open: its death ends the wait below
        running.append((process, results))
    times: list[float] = []
    try:
        for process, results in running:
            times += results.recv()
            process.join()
    except EOFError:
        raise RuntimeError(f"{root}: a writer died while it appended") from None
    finally:
        for process, _ in running:
            process.kill()
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)
    return times


def _append(path: str, count: int, barrier: Any, answer: Any) -> None:
    """The records are well formed and chained: a guard reads them."""
    lines, parent = [], "null"
    for n in range(count):
        text = (
            f'{{"type":"message","id":"{n:08x}","parentId":{parent},"timestamp":"2026-05-23T03:37:47.123Z",'
            '"message":{"role":"user","content":[{"type":"text","text":"' + "x" * 270 + '"}]}}\n'
        )
        lines.append(text.encode())
        parent = f'"{n:08x}"'
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    times = []
    clock = time.perf_counter
    barrier.wait()
    for line in lines:
        begin = clock()
        os.write(descriptor, line)
        times.append(1e6 * (clock() - begin))
    os.close(descriptor)
    answer.send(times)


def lock_cycle(root: str, count: int) -> list[float]:
    """*count* times what the gateway does with a lock file around a look at a transcript: every cycle's time."""
    path = os.path.join(root, "00000000-0000-4000-8000-000000000000.jsonl.lock")
    times = []
    clock = time.perf_counter
    for _ in range(count):
        begin = clock()
        held = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_TRUNC, 0o644)
        os.write(held, LOCK)
        os.fstat(held)
        os.close(held)
        os.lstat(path)
        mine = os.open(path, os.O_RDONLY)
        os.fstat(mine)
        os.read(mine, READ_SIZE)
        os.close(mine)
        os.lstat(path)
        os.lstat(path)
        os.unlink(path)
        times.append(1e6 * (clock() - begin))
    return times


def populate(source: Path) -> None:
    """Put `FILES` small transcripts into the directory that will be guarded."""
    for n in range(FILES):
        (source / f"{n:08x}-0000-4000-8000-000000000000.jsonl").write_bytes(b"{}\n")


def list_and_stat(root: str) -> tuple[float, float]:
    """Milliseconds to list the directory, and then to stat every name in it."""
    begin = time.perf_counter()
    names = os.listdir(root)
    listed = time.perf_counter()
    for name in names:
        os.stat(os.path.join(root, name))
    ended = time.perf_counter()
    if len(names) != FILES:
        raise RuntimeError(f"{root}: {len(names)} names listed, {FILES} are there")
    return 1e3 * (listed - begin), 1e3 * (ended - listed)
