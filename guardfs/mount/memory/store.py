"""Records in memory that outlives the daemon: a memfd that the supervisor holds and every daemon maps.

A store to mapped memory costs a fraction of a microsecond and is there whatever becomes of the process: `kill -9` ends
it between two instructions, and what it has stored stays. (It does not survive a power cut, nor does the mount.) So:

* a word of eight bytes is stored at once, or not at all;
* a record's bytes are stored first, and then the word that makes it count;
* a record that is replaced is written beside the old one, which is given up afterwards: of two with one key, the later
  one counts.

    page 0        words: `Word`
    pages 1-4     the request that is being answered (`guardfs.mount.memory.requests`)
    from page 5   slots, each of a power of two of bytes: word of kind, class and length; word of order; the bytes

Slots are used again, so there is nothing to compact. The file is sparse: what is never touched takes no memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = 0x67756172646673 << 8
FORMAT = 1
"""Of all that daemons keep here. A daemon that finds another one knows nothing of those before it."""

SIZE = 1 << 30
"""Bytes that can be addressed; some 2 million nodes."""

PAGE = 4096
REQUEST = PAGE
"""Where the page of the running request begins."""
_SLOTS = 5 * PAGE

_SMALLEST = 6  # 2**6 bytes
_LARGEST = 22
_HEAD = 16


class Word:
    """Words of the first page, by number. (No enumeration: to look one up in that takes longer than to store it.)"""

    FORMAT = 0
    END = 1  # of the slots, bytes from the beginning
    ORDER = 2  # the last number given to a record
    NODE = 3  # the next node id
    HANDLE = 4  # the next handle
    DAEMONS = 5  # how many have begun with this memory
    SERIAL = 6  # of the last note about a request
    SETTLED = 7  # the last note that was settled
    RESENT = 8  # requests that were sent again to the daemon that runs now


class Kind:
    """What a record is about. 0: its slot is free."""

    NODE = 1
    HANDLE = 2
    PLACE = 4
    STAGED = 5
    LATER = 6
    POLICY = 7
    MODE = 8
    CLAIM = 9


_ORDER = Word.ORDER


class Record(NamedTuple):
    """One record: where it lies, and what it holds. order: of two, the greater one was written later."""

    address: int
    kind: int
    order: int
    data: bytes


class MemoryFullError(Exception):
    """There is no room left."""


class Store:
    """Maps the memory *fd*. Not for several threads, nor for several processes that live."""

    def __init__(self, fd: int) -> None:
        os.ftruncate(fd, SIZE)
        self._map = mmap.mmap(fd, SIZE)
        self.bytes = memoryview(self._map)
        self.words = self.bytes.cast("Q")
        self._free: list[list[int]] = [[] for _ in range(_LARGEST + 1)]
        self.known = self.words[Word.FORMAT] == MAGIC | FORMAT
        """Whether an earlier daemon has left something that can be read."""
        if not self.known:
            self.clear()
        self._order = self.words[Word.ORDER]

    def clear(self) -> None:
        """Forget all."""
        self.words[Word.FORMAT] = 0
        self.bytes[8 : REQUEST + PAGE] = bytes(REQUEST + PAGE - 8)
        self._order = 0
        self.words[Word.END] = _SLOTS
        self.words[Word.FORMAT] = MAGIC | FORMAT
        self._free = [[] for _ in range(_LARGEST + 1)]

    def put(self, kind: int, data: bytes, room: int = 0) -> int:
        """Keep *data*, with *room* bytes to grow; its address."""
        size = len(data)
        number = max(_SMALLEST, (size + room + _HEAD - 1).bit_length())
        address = self._slot(number)
        words, at = self.words, address >> 3
        start = address + _HEAD
        self._map[start : start + size] = data
        self._order = order = self._order + 1
        words[_ORDER] = order
        words[at + 1] = order
        words[at] = size << 32 | number << 8 | kind
        return address

    def replace(self, address: int, kind: int, data: bytes, room: int = 0) -> int:
        """Keep *data* instead of the record at *address* (0: of none); the new address."""
        new = self.put(kind, data, room)
        if address:
            self.free(address)
        return new

    def append(self, address: int, data: bytes) -> bool:
        """Put *data* behind the record at *address*; False where that has no room left."""
        at = address >> 3
        head = self.words[at]
        size, number = head >> 32, head >> 8 & 0xFF
        start = address + _HEAD + size
        end = start + len(data)
        if end > address + (1 << number):
            return False
        self._map[start:end] = data
        self.words[at] = size + len(data) << 32 | head & 0xFFFFFFFF
        return True

    def write(self, at: int, data: bytes) -> None:
        """Store *data* at the offset *at*."""
        self._map[at : at + len(data)] = data

    def free(self, address: int) -> None:
        """Give the record up."""
        at = address >> 3
        number = self.words[at] >> 8 & 0xFF
        self.words[at] = number << 8
        self._free[number].append(address)

    def size(self, address: int) -> int:
        """Bytes of the record at *address*."""
        return self.words[address >> 3] >> 32

    def read(self, address: int) -> bytes:
        """Those bytes."""
        start = address + _HEAD
        return bytes(self.bytes[start : start + self.size(address)])

    def _slot(self, number: int) -> int:
        if number > _LARGEST:
            raise MemoryFullError(f"a record of {1 << number} bytes")
        free = self._free[number]
        if free:
            return free.pop()
        words = self.words
        address = words[Word.END]
        if address + (1 << number) > SIZE:
            raise MemoryFullError("the memory for a later daemon is full")
        words[address >> 3] = number << 8
        words[Word.END] = address + (1 << number)
        return address

    def scan(self) -> Iterator[Record]:
        """All records that an earlier daemon has left, as they lie; to be called once, and first of all."""
        words = self.words
        address, end = _SLOTS, words[Word.END]
        while address < end:
            head = words[address >> 3]
            number, kind = head >> 8 & 0xFF, head & 0xFF
            if not _SMALLEST <= number <= _LARGEST:
                raise ValueError(f"no slot at {address}: {head:#x}")
            if kind:
                yield Record(address, kind, words[(address >> 3) + 1], self.read(address))
            else:
                self._free[number].append(address)
            address += 1 << number

    def close(self) -> None:
        """Unmap it; what it holds stays."""
        self.words.release()
        self.bytes.release()
        self._map.close()
