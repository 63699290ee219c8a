"""The records of a whole transcript, and where each one stands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from guardfs.transcript.formats import PI, Format
from guardfs.transcript.meta import PEEK, RecordMeta

MAX_LINE = 16 << 20
"""Bytes of one record that are read whole here. A command can afford more than the daemon."""


class Position(NamedTuple):
    """One record in its file. offset, length: bytes, the newline not counted. newline: whether one ends it."""

    offset: int
    length: int
    record: RecordMeta
    newline: bool = True


def positions(
    chunks: Iterable[bytes], format: Format = PI, offset: int = 0, max_record: int = MAX_LINE
) -> Iterator[Position]:
    """The records in *chunks*, the parts of a file from *offset* (bytes) on, in whatever sizes they come.

    Blank lines are no records. Memory: one chunk and *max_record* bytes; a longer record is `oversize`. The last
    one may lack its newline, and is then valid or not like any other.
    """
    held = bytearray()
    begin = offset  # of the line under way
    length = 0
    peek = min(PEEK, max_record)

    def record() -> RecordMeta:
        return format.peek(bytes(held[:peek])) if length > max_record else format.parse(bytes(held))

    for chunk in chunks:
        start = 0
        while (newline := chunk.find(b"\n", start)) >= 0:
            if (
                not length and newline - start <= max_record
            ):  # the line lies in this chunk: nothing to put together
                length = newline - start
                line = chunk[start:newline]
                if line and not line.isspace():
                    yield Position(begin, length, format.parse(line))
            else:
                length += newline - start
                held += chunk[start : min(newline, start + _room(held, max_record))]
                if length > max_record or not held.isspace():
                    yield Position(begin, length, record())
                held.clear()
            begin += length + 1
            length = 0
            start = newline + 1
        length += len(chunk) - start
        held += chunk[start : start + _room(held, max_record)]
    if length and (length > max_record or not held.isspace()):
        yield Position(begin, length, record(), newline=False)


def _room(held: bytearray, max_record: int) -> int:
    return max(0, max_record - len(held))
