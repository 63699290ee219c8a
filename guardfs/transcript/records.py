"""What a transcript record says about itself: type, role, id and parent, never its text. Pure.

The format is pi's, which OpenClaw writes, too: one JSON object a line with ``type``,
``id``, ``parentId``, and, where ``type`` is ``message``, ``message.role``, ``message.provider`` and
``message.model``. The header is ``type: session`` and has no parent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import msgspec

MAX_RECORD = 1 << 20
"""Bytes of one record that are collected. A tool's output can be larger; its meta data is not worth more
memory than this."""

MAX_HELD = 16 << 20
"""Bytes of unfinished records held for all files together; the oldest is given up first."""

MAX_VALUE = 80
"""Characters kept of a type, role, id, parent, provider or model: whoever puts a message's text into one
shall not get it logged."""


class RecordMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record without its text. Absent values are None and are left out of the JSON.

    invalid: the line is not a JSON object. part: the bytes end before the record does; a later write ends it.
    type ``oversize``: the record was longer than `MAX_RECORD` bytes and was not read.
    """

    type: str | None = None
    role: str | None = None
    id: str | None = None
    parent: str | None = None
    provider: str | None = None
    model: str | None = None
    invalid: bool = False
    part: bool = False


INVALID = RecordMeta(invalid=True)
PART = RecordMeta(part=True)
OVERSIZE = RecordMeta(type="oversize")


class _Message(msgspec.Struct, gc=False):
    role: str | None = None
    provider: str | None = None
    model: str | None = None


class _Line(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    parentId: str | None = None  # noqa: N815 - the key in the file
    message: _Message | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_any = msgspec.json.Decoder().decode


def parse(line: bytes) -> RecordMeta:
    """The meta data of one record; *line* is without its newline. Never raises: what is no JSON object is
    `INVALID`.

    Values that are not strings (a number as id) are left out. Only the named keys are decoded: some 1 us for
    a short record.
    """
    try:
        found = _decode_line(line)
    except msgspec.ValidationError:  # JSON, but a key holds another type than it should
        return _lenient(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return INVALID
    message = found.message
    if message is None:
        return RecordMeta(_cut(found.type), None, _cut(found.id), _cut(found.parentId))
    return RecordMeta(
        _cut(found.type),
        _cut(message.role),
        _cut(found.id),
        _cut(found.parentId),
        _cut(message.provider),
        _cut(message.model),
    )


def _lenient(line: bytes) -> RecordMeta:
    try:
        found = _decode_any(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return INVALID
    if not isinstance(found, dict):
        return INVALID
    inner = found.get("message")
    message = inner if isinstance(inner, dict) else {}
    return RecordMeta(
        _cut(found.get("type")),
        _cut(message.get("role")),
        _cut(found.get("id")),
        _cut(found.get("parentId")),
        _cut(message.get("provider")),
        _cut(message.get("model")),
    )


def _cut(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 1] + "…"


class _Open:
    """A record whose newline has not been seen yet."""

    __slots__ = ("end", "parts", "size", "state")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.end: int | None = None
        self.state = _COLLECT

    def drop(self, state: int) -> None:
        self.parts = []
        self.size = 0
        self.state = state


_COLLECT, _TOLD, _TOO_LONG, _BROKEN = range(4)
"""Collecting; whole but for its newline, and told; longer than the bound; told, and then more came before the
newline."""


class Assembler:
    """Puts records together that reach the guard in several writes, one collection for each *key* (file and
    process).

    Bounded: *max_record* bytes a record, *max_held* bytes and 1,000 records in all. Not thread-safe.
    """

    def __init__(self, max_record: int = MAX_RECORD, max_held: int = MAX_HELD) -> None:
        self._open: OrderedDict[Hashable, _Open] = OrderedDict()
        self._max_record = max_record
        self._max_held = max_held
        self.held = 0
        """Bytes of unfinished records held now."""

    def feed(self, key: Hashable, offset: int | None, data: bytes) -> list[RecordMeta]:
        """The records that *data*, written at *offset* (bytes; None: unknown), ends or begins, in order.

        A record that does not end in *data* is told as `PART`, and in full by the write that ends it; one
        that is whole but for its newline is told at once, and its newline later adds nothing. A write that
        does not go on where the last one of the same key ended starts afresh. Blank lines are no records.
        """
        held = self._take(key, offset) if self._open else None
        if held is None and data.find(b"\n") == len(data) - 1 >= 0:  # one whole record: nearly every write
            return [] if data.isspace() else [self._read(data)]
        lines = data.split(b"\n")
        rest = lines.pop()
        found: list[RecordMeta] = []
        for line in lines:
            if held is not None:
                self._end(held, line, found)
                held = None
            elif line and not line.isspace():
                found.append(self._read(line))
        if rest:
            held = held or _Open()
            self._begin(held, rest, found)
        if held is not None:
            held.end = None if offset is None else offset + len(data)
            self._keep(key, held)
        return found

    def forget(self, key: Hashable) -> None:
        """Gives up what is held for *key*."""
        held = self._open.pop(key, None)
        if held is not None:
            self.held -= held.size

    def _take(self, key: Hashable, offset: int | None) -> _Open | None:
        held = self._open.pop(key, None)
        if held is None:
            return None
        self.held -= held.size
        return None if offset is not None and held.end is not None and offset != held.end else held

    def _keep(self, key: Hashable, held: _Open) -> None:
        self._open[key] = held
        self.held += held.size
        while self.held > self._max_held or len(self._open) > 1000:
            self.held -= self._open.popitem(last=False)[1].size

    def _read(self, line: bytes) -> RecordMeta:
        return OVERSIZE if len(line) > self._max_record else parse(line)

    def _begin(self, held: _Open, rest: bytes, found: list[RecordMeta]) -> None:
        """Takes in bytes after which the record's newline is still to come."""
        if held.state == _COLLECT:
            held.parts.append(rest)
            held.size += len(rest)
            if held.size > self._max_record:
                held.drop(_TOO_LONG)
            elif rest.rstrip().endswith(b"}"):
                record = parse(b"".join(held.parts))
                if not record.invalid:
                    held.drop(_TOLD)
                    found.append(record)
                    return
        elif held.state == _TOLD:
            if rest.isspace():
                return
            held.state = _BROKEN
        found.append(PART)

    def _end(self, held: _Open, line: bytes, found: list[RecordMeta]) -> None:
        """Takes in the last bytes of a record, up to its newline."""
        if held.state == _COLLECT:
            held.parts.append(line)
            found.append(self._read(b"".join(held.parts)))
        elif held.state == _TOO_LONG:
            found.append(OVERSIZE)
        elif held.state == _BROKEN or (line and not line.isspace()):
            found.append(INVALID)  # two objects on one line: no reader of the transcript can parse that
