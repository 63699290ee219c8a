"""The end of a transcript, at the same cost whatever its size. Pure: the caller reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from guardfs.transcript.formats import PI, Format, Place
from guardfs.transcript.meta import MAX_RECORD, OVERSIZE, PEEK
from guardfs.transcript.positions import Position

FIRST_BLOCK = 4 << 10
LAST_BLOCK = 1 << 20
"""Bytes asked for at once: first, and at most; in between each is twice the one before."""

MAX_READ = 16 << 20
"""Bytes read in all before the search is given up."""

MAX_RECORDS = 1000
"""Records looked at before the search is given up: side chains and snapshots can stand behind the leaf."""

Read = Callable[[int, int], bytes]
"""read(offset, size), in bytes, as pread(2); fewer bytes only where the file has become shorter."""


class Tail(NamedTuple):
    """How a transcript ends.

    newline: it ends in a newline, or is empty; else its last record may be torn. last: the last line that is not blank,
    whatever it is; None: there is none, or it was not found. leaf: the id that the next record will continue; None:
    none, or without an id. leaf_at: the record that is the leaf; None where a ``leaf`` record names it.
    known: False where the bounds were reached, or the file became shorter, before the leaf was found, where the
    last record is too long to tell its id, or where the end takes something back (``$rewindTo``): only the whole file
    tells then. If the start of a too long last line was not found either, its offset is where the search ended.
    """

    newline: bool
    last: Position | None
    leaf: str | None
    leaf_at: Position | None
    known: bool


def tail(
    read: Read,
    size: int,
    format: Format = PI,
    *,
    max_record: int = MAX_RECORD,
    max_read: int = MAX_READ,
    max_records: int = MAX_RECORDS,
) -> Tail:
    """The end of a transcript of *size* bytes. Errors of *read* pass through.

    Asks for `FIRST_BLOCK` bytes where the leaf is short and last, and never for more than *max_read*, plus `PEEK`.
    """
    scan = _Backward(read, size, max_record, max_read)
    last: Position | None = None
    for count, position in enumerate(scan.lines(format)):
        last = last or position
        if not scan.found:
            return Tail(scan.newline, last, None, None, False)
        record = position.record
        place = format.place(record)
        if place is Place.NODE:
            known = record.id is not None or not format.parents
            return Tail(scan.newline, last, record.id, position, known)
        if record.oversize and format.parents and record.id is None:
            return Tail(scan.newline, last, None, position, False)
        if place is Place.LEAF:
            return Tail(scan.newline, last, record.target or None, None, True)
        if place is Place.REWIND or count + 1 >= max_records:
            return Tail(scan.newline, last, None, None, False)
    return Tail(scan.newline, last, None, None, scan.found)


class _Backward:
    """Lines from the end to the start. found: no bound has been reached."""

    def __init__(self, read: Read, size: int, max_record: int, max_read: int) -> None:
        self._read = read
        self._size = size
        self._start = size  # all from here on has been read
        self._block = FIRST_BLOCK
        self._left = max_read
        self._max_record = max_record
        self.newline = size == 0
        self.found = True

    def lines(self, format: Format) -> Iterator[Position]:
        """The lines that are not blank, the last one first."""
        end, newline = self._size, False  # end of the line under way, and whether a newline follows
        held = b""  # what of it has been read; its last bytes are dropped once it is too long
        while True:
            at = held.rfind(b"\n")
            while at < 0 and self._start > 0:
                if end - self._start > self._max_record:
                    held = b""
                block = self._more()
                if block is None:
                    if end > self._start:  # the rest of a line without its start
                        yield Position(self._start, end - self._start, OVERSIZE, newline)
                    return
                if self._start + len(block) == self._size:
                    self.newline = block.endswith(b"\n")
                at = block.rfind(b"\n")
                held = block + held
            begin = self._start + at + 1
            position = self._position(format, begin, end, held[at + 1 :], newline)
            if position is not None:
                yield position
                if not self.found:
                    return
            if at < 0:
                return
            held, end, newline = held[:at], begin - 1, True

    def _position(self, format: Format, begin: int, end: int, text: bytes, newline: bool) -> Position | None:
        length = end - begin
        if length > self._max_record:
            size = min(PEEK, self._max_record)
            head = text[:size] if len(text) >= size else self._exactly(begin, size)
            return Position(begin, length, OVERSIZE if head is None else format.peek(head), newline)
        if not text or text.isspace():
            return None
        return Position(begin, length, format.parse(text), newline)

    def _more(self) -> bytes | None:
        size = min(self._block, self._start, self._left)
        if size <= 0:
            self.found = False
            return None
        block = self._exactly(self._start - size, size)
        if block is None:
            return None
        self._start -= size
        self._left -= size
        self._block = min(2 * self._block, LAST_BLOCK)
        return block

    def _exactly(self, offset: int, size: int) -> bytes | None:
        data = self._read(offset, size)
        if len(data) != size:
            self.found = False
            return None
        return data
