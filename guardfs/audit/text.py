"""JSON fragments for the log: names and texts that need not be UTF-8, times. Pure."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

json_bytes = msgspec.json.Encoder(enc_hook=str).encode
"""Compact JSON of an object; of what JSON has no form for, its `str`."""


def clean(value: str) -> str:
    """*value* without lone surrogates (undecodable bytes of /proc or a path): these become ``\\xNN``
    escapes."""
    try:
        value.encode()
        return value
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def safe_json(value: Any) -> bytes:
    """Compact JSON of *value*, whatever it holds: never raises for texts with undecodable bytes or unknown
    types."""
    try:
        return json_bytes(value)
    except (UnicodeEncodeError, msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return json_bytes(_clean_deep(value, 6))


def _clean_deep(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean_any(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if depth and isinstance(value, dict):
        return {clean_any(str(key)): _clean_deep(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_clean_deep(item, depth - 1) for item in value]
    return clean_any(repr(value))


def clean_any(value: str) -> str:
    """As `clean`, for surrogates that no decoder of bytes makes, too."""
    return value.encode("utf-8", "backslashreplace").decode() if not value.isascii() else value


def name_json(key: str, name: bytes) -> bytes:
    """``"key":"..."`` for a path; where it is not UTF-8 with ``\\xNN`` for the bad bytes and ``"key_b64"``
    with the exact bytes."""
    try:
        return b'"%b":%b' % (key.encode(), json_bytes(name.decode()))
    except UnicodeDecodeError:
        shown = json_bytes(name.decode("utf-8", "backslashreplace"))
        exact = base64.b64encode(name)
        return b'"%b":%b,"%b_b64":"%b"' % (key.encode(), shown, key.encode(), exact)


def session_of(path: bytes) -> str:
    """The session id of a transcript or lock file: its file name up to ``.jsonl``."""
    name = path[path.rfind(b"/") + 1 :]
    end = name.find(b".jsonl")
    return (name if end < 0 else name[:end]).decode("utf-8", "backslashreplace")
