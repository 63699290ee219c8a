"""The fence machine's knowledge of each transcript on which something goes on: a picture of it, and every event since.

An event is small and quickly written; a picture is not. So a picture is made only where the room behind the last one is
used up: once in some dozens of events (docs/decisions says what was measured). What the machine makes of the events is
pure, so feeding them to the picture once more gives the same.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import TYPE_CHECKING, Any

import msgspec

from guardfs.fence.effects import Effect
from guardfs.fence.events import Event, Kind, ProcessKey
from guardfs.mount.memory.store import Kind as Kept
from guardfs.mount.memory.store import Record, Store

if TYPE_CHECKING:
    from guardfs.fence.fence import Place
    from guardfs.fence.machine import Machine

ROOM = 30 << 10
"""Bytes of events behind a picture."""

_FIRST_ROOM = 7 << 10
"""The same for a transcript of which nothing was known before: most are done with after a lock cycle."""


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One event. serial: of the note that it was made of, 0 if none. token: the transcript's last one, before it."""

    serial: int
    token: int
    event: Event


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Entry)
_MODULES = ("guardfs.fence.", "guardfs.transcript.meta")
_BUILT_IN = {
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("copyreg", "_reconstructor"),
    ("builtins", "object"),
}

copyreg.pickle(Kind, lambda kind: (Kind, (int(kind),)))  # Python 3.11.0 to 3.11.3 would call getattr


class _Pictures(pickle.Unpickler):
    """Makes nothing but what a picture consists of."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(_MODULES) or (module, name) in _BUILT_IN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a picture")


class FenceLedger:
    """The `journal` of a machine. serial: of the note that is being settled."""

    def __init__(self, store: Store, machine: Machine) -> None:
        self._store = store
        self._machine = machine
        self._at: dict[bytes, int] = {}
        self.serial = 0
        self.failed = False

    def __call__(
        self, event: Event, token: int, effects: tuple[Effect, ...], touched: tuple[bytes, ...]
    ) -> None:
        """*event* was applied; touched: the transcripts that it changed, if it was about none."""
        if event.kind is Kind.EXIT or event.kind is Kind.TICK:
            for transcript in touched:
                self.picture(transcript)
            return
        transcript = event.transcript
        address = self._at.get(transcript, 0)
        if not self._machine.watches(transcript):
            if address:
                self._store.free(address)
                del self._at[transcript]
            return
        data = _encode((self.serial, token, event))
        data = len(data).to_bytes(4, "little") + data
        if not address:
            head = _head(transcript, b"")
            if self._machine.begun(transcript):
                self._at[transcript] = self._store.put(Kept.PLACE, head + data, _FIRST_ROOM)
            else:
                self.picture(transcript)
        elif not self._store.append(address, data):
            self.picture(transcript)

    def picture(self, transcript: bytes) -> None:
        """Write down all that is known of *transcript*."""
        address = self._at.pop(transcript, 0)
        place = self._machine.place(transcript)
        if place is None:
            if address:
                self._store.free(address)
            return
        head = _head(transcript, pickle.dumps((self.serial, self._machine.token(transcript), place), 5))
        self._at[transcript] = self._store.replace(address, Kept.PLACE, head, ROOM)

    def adopt(self, transcript: bytes, address: int) -> None:
        """What is kept at *address* is of *transcript*, and true."""
        self._at[transcript] = address


def _head(transcript: bytes, picture: bytes) -> bytes:
    return b"".join(
        (
            len(transcript).to_bytes(4, "little"),
            transcript,
            len(picture).to_bytes(4, "little"),
            picture,
        )
    )


class PlaceKept(msgspec.Struct):
    """What is kept of one transcript."""

    transcript: bytes
    picture: bytes
    entries: list[Entry]


def place_of(record: Record) -> PlaceKept:
    """Read a record. Entries that were not finished are left out."""
    data = record.data
    at = 4 + int.from_bytes(data[:4], "little")
    transcript = data[4:at]
    size = int.from_bytes(data[at : at + 4], "little")
    at += 4
    picture = data[at : at + size]
    at += size
    entries: list[Entry] = []
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        entries.append(_decoder.decode(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return PlaceKept(transcript, picture, entries)


def restore(machine: Machine, kept: PlaceKept) -> int:
    """Give *machine* back what was known; the serial number of the last note in it."""
    from guardfs.fence.fence import Place as NewPlace

    place: Place
    serial, token, place = 0, 0, NewPlace()
    if kept.picture:
        serial, token, place = _Pictures(io.BytesIO(kept.picture)).load()
        machine.set_token(kept.transcript, token)
    machine.take_over(kept.transcript, place)
    for entry in kept.entries:
        machine.set_token(kept.transcript, entry.token)
        machine.apply(entry.event)
        serial = max(serial, entry.serial)
    return serial


def processes(machine: Machine) -> frozenset[ProcessKey]:
    """Those whose end matters."""
    return machine.processes()
