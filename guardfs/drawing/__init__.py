"""The swimlane picture, for browsers: classic scripts without a build step, and their style. The report holds them
inline, a live page serves them; what they draw is `guardfs.report.model`'s.

Each script adds to the one global, ``guardfs``; what stands later in `SCRIPTS` uses what stands before it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

SCRIPTS = (
    "elements.js",
    "time.js",
    "scale.js",
    "symbols.js",
    "session.js",
    "view.js",
    "words.js",
    "paint.js",
    "incidents.js",
    "swimlanes.js",
)
STYLES = ("swimlanes.css",)


def script() -> str:
    """All scripts as one."""
    return "\n".join(map(_read, SCRIPTS))


def style() -> str:
    """The style of the picture; its colours are custom properties (``--lanes-...``) that a page may set."""
    return "\n".join(map(_read, STYLES))


@cache
def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")
