"""The request that is being answered, as the next daemon will find it.

A daemon answers one request at a time, but for those that wait in a thread. So one page is enough:

    unique    the kernel's number of the request; a request that is sent again has it once more
    state     INTENT: it may have been acted upon; DONE: it was, `result` is what the caller is (to be) told
    before    what the file was like, to tell afterwards whether anything was done
    notes     what fences, branches and log are to be told of it, which happens after the answer

State is stored last of all. A daemon can have died just before that, or just behind it: see
`guardfs.mount.memory.again`.
"""

from __future__ import annotations

import errno
import time
from typing import Any, NamedTuple

import msgspec

from guardfs.mount.memory.store import PAGE, REQUEST, Kind, Store, Word

RESENT = 1 << 63
"""FUSE_UNIQUE_RESEND of <linux/fuse.h>."""

INTENT, DONE = 1, 2

OPERATIONS = (
    "write create open mkdir mknod symlink link unlink rmdir rename setattr setxattr removexattr lookup"
).split()
"""Operations of which the next daemon must know, by the number that is kept: those that change something, and those
that only fences must know of, once."""

CHANGING = frozenset(OPERATIONS[:-1])

_BASE = REQUEST >> 3
_UNIQUE, _STATE, _RESULT, _BRANCH, _BRANCH_SIZE, _BEFORE, _NOTES = 0, 1, 2, 3, 4, 5, 12
_AT_STATE, _AT_RESULT, _AT_BRANCH, _AT_BEFORE = (_BASE + at for at in (_STATE, _RESULT, _BRANCH, _BEFORE))
_NOTE_AREA = REQUEST + 256
_NOTE_ROOM = 4 * PAGE - 256
_WIDE = (1 << 64) - 1
_END, _SERIAL, _SETTLED = _BASE + _NOTES, Word.SERIAL, Word.SETTLED


class Note(msgspec.Struct, array_like=True, gc=False):
    """What was noted of an answered request: see `Noted` of `guardfs.mount.operations.parts`. data: bytes that a
    write wrote, which stand in the file."""

    serial: int
    unique: int
    op: str
    begin: int
    kind: int
    path: bytes
    errno: int
    node: int
    after: tuple[int, int, int, int, int] | None
    tid: int
    tgid: int
    start: int
    uid: int
    gid: int
    to: bytes | None
    operation: str | None
    before: tuple[int, int, int, int, int] | None
    replaced: tuple[int, int, int, int, int] | None
    writes: bool
    truncates: bool
    verdict: str
    staged: bool
    side: bool
    aside: bool
    branch: int
    offset: int | None
    size: int | None
    append: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Note).decode


class Left(NamedTuple):
    """The request that an earlier daemon was at. unique: without the bit of one that is sent again. branch,
    branch_size: of the branch that it was about to write, 0 if none. before: see `Running.begin`."""

    unique: int
    op: str
    done: bool
    result: int
    branch: int
    branch_size: int
    before: tuple[int, ...]


class Running:
    """Writes down the request at hand. began: something of it is written. unique: its number."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._words = store.words
        self.began = False
        self.unique = self._state = 0
        self._serial = self._words[Word.SERIAL]
        self._settled = self._words[Word.SETTLED]
        self._end = 0

    def begin(self, op: int, unique: int, *before: int) -> None:
        """The request *unique* is about to be acted upon. before: numbers that tell its state before from that
        after."""
        words = self._words
        words[_AT_STATE] = 0
        words[_BASE] = unique & ~RESENT
        words[_AT_BRANCH] = 0
        at = _AT_BEFORE
        for number in before:
            words[at] = number
            at += 1
        words[_AT_STATE] = self._state = op << 8 | INTENT
        self.began = True
        self.unique = unique

    def branch(self, number: int, size: int) -> None:
        """It is about to change a branch's data of *size* bytes."""
        self._words[_BASE + _BRANCH_SIZE] = size
        self._words[_BASE + _BRANCH] = number

    def done(self, result: int) -> None:
        """It was acted upon. result: bytes written, or a negative error number."""
        words = self._words
        words[_AT_RESULT] = result & _WIDE
        words[_AT_STATE] = self._state ^ INTENT ^ DONE
        self.began = False

    @property
    def next(self) -> int:
        """The serial number of the next note."""
        return self._serial + 1

    def note(self, values: tuple[Any, ...]) -> int:
        """Keep the fields of a `Note` until it is settled; its serial number, 0 if it cannot be kept."""
        data = _encode(values)
        if self._settled == self._serial:
            self._end = 0
        start = self._end
        end = start + 8 + (len(data) + 7 & ~7)
        if end > _NOTE_ROOM:
            return 0
        words, at = self._words, _NOTE_AREA + start
        self._serial = serial = self._serial + 1
        self._store.write(at + 8, data)
        words[at >> 3] = len(data)
        self._end = words[_END] = end
        words[_SERIAL] = serial
        return serial

    def settled(self, serial: int) -> None:
        """Fences and branches know of the note *serial*, and of those before it."""
        if serial:
            self._settled = self._words[_SETTLED] = serial

    def later(self, unique: int, result: int) -> int:
        """The request *unique* was acted upon, and is answered with *result* when a thread is through; where that is
        kept."""
        return self._store.put(
            Kind.LATER, unique.to_bytes(8, "little") + (result & _WIDE).to_bytes(8, "little")
        )

    def answered(self, address: int) -> None:
        """It is answered."""
        self._store.free(address)

    # ---- what an earlier daemon left

    def left(self) -> Left | None:
        """The request that it was at."""
        words = self._words
        state = words[_BASE + _STATE]
        if not state & 0xFF or not words[_BASE + _UNIQUE] or state >> 8 >= len(OPERATIONS):
            return None
        result = words[_BASE + _RESULT]
        return Left(
            words[_BASE + _UNIQUE],
            OPERATIONS[state >> 8],
            state & 0xFF == DONE,
            result - (1 << 64) if result >> 63 else result,
            words[_BASE + _BRANCH],
            words[_BASE + _BRANCH_SIZE],
            tuple(words[_BASE + _BEFORE : _BASE + _NOTES]),
        )

    def notes(self) -> list[Note]:
        """The notes that were not settled, in order."""
        words, found = self._words, []
        at, end, settled = 0, min(words[_BASE + _NOTES], _NOTE_ROOM), words[Word.SETTLED]
        while at < end:
            start = _NOTE_AREA + at
            size = words[start >> 3]
            try:
                note = _decode(self._store.bytes[start + 8 : start + 8 + size])
            except msgspec.MsgspecError:
                break
            if settled < note.serial <= words[Word.SERIAL]:
                found.append(note)
            at += 8 + (size + 7 & ~7)
        return found

    def forget(self) -> None:
        """Nothing of an earlier daemon is unsettled any more."""
        self.settled(self._serial)


def error_of(result: int) -> OSError | None:
    """The error that a kept *result* stands for."""
    return OSError(-result, errno.errorcode.get(-result, "")) if result < 0 else None


def now_word() -> int:
    """The wall clock, ns since the epoch."""
    return time.time_ns()
