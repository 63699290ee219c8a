"""What is kept of a transcript record: type, role, ids and where it stands, never its text. Pure."""

from __future__ import annotations

import msgspec

MAX_RECORD = 1 << 20
"""Bytes of one record that are collected. A tool's output can be larger; its meta data is not worth more
memory than this."""

MAX_VALUE = 80
"""Characters kept of a type, role, id, parent, provider or model: whoever puts a message's text into one
shall not get it logged."""

PEEK = 16 << 10
"""First bytes of a record beyond the bound that are looked at."""


class RecordMeta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One record without its text. Absent values are None and are left out of the JSON.

    parent: the id that the record names as the one before it. invalid: the line is not a record (not a JSON
    object, in most formats). part: the bytes end before the record does; a later write ends it. oversize: longer
    than the bound (`MAX_RECORD` by default); what is known stood in its first `PEEK` bytes, and whether it is valid
    was not looked at.
    target: of a record that moves through the history: pi's ``leaf``, the id that becomes the leaf, "" for
    none; Gemini CLI's ``$rewindTo``, the first id that is taken back. onto: of a ``leaf``: the parent that the next
    record will name, where that is not the target; "" for none. side: a record beside the conversation.
    """

    type: str | None = None
    role: str | None = None
    id: str | None = None
    parent: str | None = None
    provider: str | None = None
    model: str | None = None
    invalid: bool = False
    part: bool = False
    oversize: bool = False
    target: str | None = None
    onto: str | None = None
    side: bool = False


INVALID = RecordMeta(invalid=True)
PART = RecordMeta(part=True)
OVERSIZE = RecordMeta(oversize=True)
"""A record beyond the bound of which nothing is known."""


def cut(value: object) -> str | None:
    """*value* if it is a string, at most `MAX_VALUE` characters of it, and such that it can be written as UTF-8."""
    if not isinstance(value, str):
        return None
    if len(value) > MAX_VALUE:
        value = value[: MAX_VALUE - 1] + "…"
    if not value.isascii():  # half a character outside the basic plane is a valid escape in JSON
        value = value.encode("utf-8", "replace").decode()
    return value
