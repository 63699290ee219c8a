"""What two gateways have left behind, in a form that is the same where they did the same.

Ids are named by the order in which they first stand; times, durations and the state directory's path are left out.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

from tests.gateway.gateway import Gateway

_VARYING = re.compile(
    r"(?P<uuid>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)"
    r"|(?P<id>(?<=\")[0-9a-f]{8}(?=\"))"
    r"|(?P<call>\bcall_[0-9a-f]+)"
    r"|(?P<time>\b\d{4}-\d\d-\d\dT\d\d[:-]\d\d[:-]\d\d\.\d{3}Z)"
    r"|(?P<ms>\b1[0-9]{12}\b)"
    r"|(?P<duration>(?<=\"durationMs\":)\d+)"
)


def _namer() -> Callable[[re.Match[str]], str]:
    """Names what `_VARYING` finds: times and durations by what they are, ids also by their order."""
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        kind = str(match.lastgroup)
        if kind in ("time", "ms", "duration"):
            return f"<{kind}>"
        return names.setdefault(match[0], f"<{kind} {len(names)}>")

    return name


def told(gateway: Gateway, transcript: Path) -> list[str]:
    """The lines of *transcript*."""
    text = transcript.read_text().replace(str(gateway.state), "<state>")
    return _VARYING.sub(_namer(), text).split("\n")


def listing(gateway: Gateway) -> list[tuple[str, str, int, int, int]]:
    """The sessions directory: name, mode, links, user, group of each entry. What is named by an id stands without it,
    so the lines are to be compared as a whole."""
    found = []
    for path in gateway.sessions.iterdir():
        info = path.lstat()
        name = _VARYING.sub(lambda match: f"<{match.lastgroup}>", path.name)
        found.append((name, stat.filemode(info.st_mode), info.st_nlink, info.st_uid, info.st_gid))
    return sorted(found)
