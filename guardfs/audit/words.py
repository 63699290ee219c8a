"""Words for a terminal: what comes from file names and processes is shown with control characters escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UUID = re.compile(r"([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def safe(text: str) -> str:
    """*text* with control and direction characters as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def short(path: str) -> str:
    """A path with its UUIDs cut to their first eight digits, which is how people tell sessions apart."""
    return safe(_UUID.sub(r"\1…", path))


def where_of(event: Mapping[str, Any]) -> str:
    """The transcript of a notice: by its session's key, as the gateway's own log writes it, or by its name."""
    session = event.get("session")
    named = isinstance(session, str) and ":" in session
    return f"session:{session}" if named else short(str(event.get("path")))
