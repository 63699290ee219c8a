"""Child processes of the tests: `tests.support.writers`, shells, namespaces."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.support.guard import GUARDFS, ROOT, environment

WRITERS = [sys.executable, "-m", "tests.support.writers"]


def writer(name: str, *args: object, prefix: tuple[str, ...] = ()) -> Any:
    """Run one function of `writers`; what it printed."""
    done = subprocess.run(
        [*prefix, *WRITERS, name, *map(str, args)],
        capture_output=True,
        cwd=ROOT,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.strip() or done.stderr.strip().splitlines()[-1:]
    if isinstance(text, list):
        text = text[0] if text else b"null"
    return json.loads(text)


def start_writer(name: str, *args: object) -> subprocess.Popen[bytes]:
    """The same, left running; its output is a pipe."""
    return subprocess.Popen(
        [*WRITERS, name, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )


def guardfs(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*GUARDFS, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(**more),
        cwd="/",
        timeout=120,
    )
