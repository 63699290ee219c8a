"""An agent that keeps to the protocol of OpenClaw 2026.5.20 (protocol page, section 3), in this process; and others
that do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

NAME = "fb87a1b2-0000-4000-8000-000000000001.jsonl"


def record(record_id: str, parent: str | None, role: str = "user") -> bytes:
    fields = {
        "type": "message",
        "id": record_id,
        "parentId": parent,
        "message": {"role": role, "content": "hi"},
    }
    return json.dumps(fields).encode() + b"\n"


def on_pool_thread(work: Callable[[], object]) -> None:
    """As the gateway's file work is done: not by the main thread."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Agent:
    """Keeps to the protocol of OpenClaw 2026.5.20 (protocol page, section 3), in this process."""

    def __init__(self, directory: Path, first: int = 1) -> None:
        """first: the id of its first record."""
        self.path = directory / NAME
        self.lock = directory / f"{NAME}.lock"
        self.leaf: str | None = None
        self._next = first

    def _take(self) -> None:
        descriptor = os.open(self.lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, b'{"pid":%d}' % os.getpid())
        os.close(descriptor)

    def cycle(self, *steps: Callable[[], object]) -> None:
        """One lock cycle with *steps* on pool threads; `append`, and a step named ``flush``, is the main
        thread's."""
        on_pool_thread(self._take)
        for step in steps:
            if step == self.append or getattr(step, "__name__", "") == "flush":
                step()
            else:
                on_pool_thread(step)
        on_pool_thread(self.lock.unlink)

    def read(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def look(self) -> object:
        try:
            return self.path.stat()
        except FileNotFoundError:
            return None

    def append(self) -> None:
        parent, self.leaf = self.leaf, f"{self._next:08x}"
        self._next += 1
        self.append_raw(record(self.leaf, parent))

    def append_raw(self, data: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(data)

    def begin(self) -> None:
        self.cycle(self.read, self.append, self.look)

    def delta(self) -> None:
        self.cycle(self.look, self.append, self.look)

    def end(self) -> None:
        self.cycle(self.look)


def elsewhere(code: str, *args: object, data: bytes = b"") -> str:
    """Run *code* in another process, with *args* as sys.argv[1:]; what it prints. CalledProcessError if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, os, sys\n{code}", *map(str, args)],
        input=data,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
