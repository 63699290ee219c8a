"""Reads values of events that may be anything: a log may be damaged, or written by somebody else. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from guardfs.audit.show import safe

MAX_TEXT = 300
"""Characters shown of one name, lane or rule."""

_LARGEST = 1 << 62


def text(value: object) -> str:
    """*value* if it is a string, control and direction characters escaped, cut; "" otherwise."""
    return _shown(value) if isinstance(value, str) else ""


@lru_cache(maxsize=4096)  # the same few names stand in every event
def _shown(value: str) -> str:
    shown = safe(value)
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def number(value: object, otherwise: int = 0) -> int:
    """*value* if it is an integer that any reader can hold."""
    if isinstance(value, int) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST:
        return value
    return otherwise


def mapping(value: object) -> Mapping[str, Any]:
    """*value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Mapping[str, Any]]:
    """The JSON objects in *value*, if it is a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def micros(value: object) -> int | None:
    """A time as events write it, as microseconds since the epoch; None if it is none."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return round(found.timestamp() * 1e6) if found.tzinfo is not None else None
    except (ValueError, OverflowError, OSError):
        return None


def transcript_of(event: Mapping[str, Any]) -> str:
    """Name of the transcript that an event is about: for its lock file, and for a rename onto it, too."""
    replaces = event.get("op") == "rename" and event.get("class") == "rewrite"
    return text(event.get("to") if replaces else event.get("path")).removesuffix(".lock")
