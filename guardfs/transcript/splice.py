"""One JSON value of one record, found and changed in its text; every other byte stays as written. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from guardfs.transcript.meta import MAX_VALUE
from guardfs.transcript.scan import members

Span = tuple[int, int]
"""First byte of a value, and the byte after it."""


def span(text: bytes, keys: Sequence[bytes]) -> Span | None:
    """The value of the first of *keys* that holds a string in the object *text*, else of the first that is there.

    Of duplicate keys the last one counts, as every reader of JSON has it; never one of a nested object. *text* may
    be cut off: what does not end in it is not found.
    """
    found = {key: (begin, end) for key, begin, end in members(text) if end is not None and key in keys}
    present = [found[key] for key in keys if key in found]
    return next((each for each in present if text[each[0]] == 0x22), present[0] if present else None)


def put(line: bytes, at: Span, value: str | None) -> bytes:
    """*line* with *value* at *at*."""
    return b"".join((line[: at[0]], written(value), line[at[1] :]))


def written(value: str | None) -> bytes:
    """*value* as JSON. Half a surrogate pair, which UTF-8 cannot say, is written as the escape that it was."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def whole(value: str | None, line: bytes, keys: Sequence[bytes]) -> str | None:
    """An id as *line* has it, where `RecordMeta` may hold a cut one (*value*): only a whole id can be compared
    or written."""
    if value is None or (len(value) < MAX_VALUE and "?" not in value):
        return value
    at = span(line, keys)
    if at is None:
        return value
    try:
        found = json.loads(line[at[0] : at[1]].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, str) else value
