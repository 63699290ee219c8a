"""Puts records together from the writes that reach the guard. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from guardfs.transcript.formats import PI, Format
from guardfs.transcript.meta import INVALID, MAX_RECORD, MAX_VALUE, OVERSIZE, PART, PEEK, RecordMeta

__all__ = ["INVALID", "MAX_RECORD", "MAX_VALUE", "OVERSIZE", "PART", "Assembler", "RecordMeta", "parse"]

MAX_HELD = 16 << 20
"""Bytes of unfinished records held for all files together; the oldest is given up first."""

MAX_OPEN = 1000
"""Unfinished records for all files together."""

parse = PI.parse

_TRIES = 8
"""How often a record is read before its newline; then only when it has doubled, or the cost would grow with the
square of its size."""


class _Open:
    """A record whose newline has not been seen yet."""

    __slots__ = ("data", "end", "head", "state", "tried", "tries")

    def __init__(self) -> None:
        self.data = bytearray()
        self.end: int | None = None
        self.state = _COLLECT
        self.head = OVERSIZE
        self.tries = 0
        self.tried = 0

    def drop(self, state: int) -> None:
        self.data = bytearray()
        self.state = state


_COLLECT, _TOLD, _TOO_LONG, _BROKEN = range(4)
"""Collecting; whole but for its newline, and told; longer than the bound; told, and then more came before the
newline."""


class Assembler:
    """Puts records together that reach the guard in several writes, one collection for each *key* (file and
    process).

    Bounded: *max_record* bytes a record, *max_held* bytes and `MAX_OPEN` records in all, and no more work than some
    ten times reading each record. Not thread-safe.
    """

    def __init__(self, max_record: int = MAX_RECORD, max_held: int = MAX_HELD, format: Format = PI) -> None:
        self._open: OrderedDict[Hashable, _Open] = OrderedDict()
        self._max_record = max_record
        self._max_held = max_held
        self.format = format
        self._parse = format.parse
        self._peek = format.peek
        self._head = min(PEEK, max_record)
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
            return [] if data.isspace() else [self._read(data, 1)]
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
            self.held -= len(held.data)

    def _take(self, key: Hashable, offset: int | None) -> _Open | None:
        held = self._open.pop(key, None)
        if held is None:
            return None
        self.held -= len(held.data)
        return None if offset is not None and held.end is not None and offset != held.end else held

    def _keep(self, key: Hashable, held: _Open) -> None:
        self._open[key] = held
        self.held += len(held.data)
        while self.held > self._max_held or len(self._open) > MAX_OPEN:
            self.held -= len(self._open.popitem(last=False)[1].data)

    def _read(self, line: bytes, newline: int = 0) -> RecordMeta:
        if len(line) - newline > self._max_record:
            return self._peek(line[: self._head])
        return self._parse(line)

    def _begin(self, held: _Open, rest: bytes, found: list[RecordMeta]) -> None:
        """Takes in bytes after which the record's newline is still to come."""
        if held.state == _COLLECT:
            held.data += rest
            if len(held.data) > self._max_record:
                held.head = self._peek(bytes(held.data[: self._head]))
                held.drop(_TOO_LONG)
            elif rest.rstrip().endswith(b"}"):
                record = self._try(held)
                if record is not None:
                    held.drop(_TOLD)
                    found.append(record)
                    return
        elif held.state == _TOLD:
            if rest.isspace():
                return
            held.state = _BROKEN
        found.append(PART)

    def _try(self, held: _Open) -> RecordMeta | None:
        """The record, if it is whole already."""
        size = len(held.data)
        held.tries += 1
        if held.tries > _TRIES and size < 2 * held.tried:
            return None
        held.tried = size
        record = self._parse(bytes(held.data))
        return None if record.invalid else record

    def _end(self, held: _Open, line: bytes, found: list[RecordMeta]) -> None:
        """Takes in the last bytes of a record, up to its newline."""
        if held.state == _COLLECT:
            held.data += line
            if not held.data.isspace():
                found.append(self._read(bytes(held.data)))
        elif held.state == _TOO_LONG:
            found.append(held.head)
        elif held.state == _BROKEN or (line and not line.isspace()):
            found.append(INVALID)  # two objects on one line: no reader of the transcript can parse that
