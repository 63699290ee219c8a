"""The words of a record: what a person said, or a model. Only for those who ask for it. Pure.

Nothing in the guard keeps or logs them; a command reads them in the transcript itself.
"""

from __future__ import annotations

import json
from typing import Any

MAX_TEXT = 500
"""Characters that are given back."""

_KEYS = ("text", "content", "message", "output", "summary", "thinking")
_DEPTH = 6


def text_of(line: bytes) -> str:
    """The first words in one line of a transcript, whatever its format: blanks joined, at most `MAX_TEXT`
    characters; "" where there are none."""
    try:
        found = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    inner = next((found[key] for key in ("message", "payload") if isinstance(found.get(key), dict)), found)
    parts: list[str] = []
    _collect(inner, parts, _DEPTH)
    text = " ".join(" ".join(parts).split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _collect(value: Any, parts: list[str], depth: int) -> None:
    if isinstance(value, str):
        parts.append(value[: 4 * MAX_TEXT])
    elif not depth or sum(map(len, parts)) > MAX_TEXT:
        return
    elif isinstance(value, list):
        for each in value[:100]:
            _collect(each, parts, depth - 1)
    elif isinstance(value, dict):
        if value.get("type") in ("toolCall", "tool_use", "function_call"):
            parts.append(f"[{value.get('name') or 'tool'}]")
            return
        for key in _KEYS:
            if key in value:
                _collect(value[key], parts, depth - 1)
                return
