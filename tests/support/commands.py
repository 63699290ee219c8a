"""`guardfs ...` as typed."""

from __future__ import annotations

import subprocess

from tests.support.guard import GUARDFS, environment


def guardfs(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end. more: variables of its environment."""
    return subprocess.run(
        [*GUARDFS, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        cwd="/",
    )
