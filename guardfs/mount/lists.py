"""The names of directories, while somebody reads them. Pure."""

from __future__ import annotations

import secrets

from guardfs.mount.nodes import Node

_BEGUN, _ROWS = 64, 200_000
"""Lists, and names in them all, that are remembered until they are read to their end. Of more, the oldest are taken
anew where their reader goes on."""

_POSITION, _NUMBERS = 32, (1 << 30) - 1
"""Bits of an offset that say where in a list; those above say in which. The kernel joins what several readers are sent
into one list, by the offsets: so none has another's."""

Row = tuple[bytes, int, int]
"""Name, inode number, file type bits of a mode."""


class Listing:
    """The names of a directory as they were when a list was begun (POSIX promises no more). turns: those of *node*
    then; -1: somebody reads on whose list is not known any more."""

    __slots__ = ("node", "number", "rows", "turns")

    def __init__(self, number: int, node: Node, turns: int) -> None:
        self.number = number
        self.node = node
        self.turns = turns
        self.rows: list[Row] = []

    def offset(self, position: int) -> int:
        """What the kernel calls the place before the name at *position*."""
        return self.number << _POSITION | position


class Begun:
    """Lists that are being read, by number."""

    def __init__(self) -> None:
        self._lists: dict[int, Listing] = {}
        self._last = secrets.randbits(29)  # so the lists of an earlier daemon have other numbers
        self._rows = 0

    def __len__(self) -> int:
        return len(self._lists)

    def at(self, offset: int) -> Listing | None:
        """The list in which *offset* is."""
        return self._lists.get(offset >> _POSITION)

    def new(self, node: Node, turns: int) -> Listing:
        """A list with a number of its own."""
        self._last = self._last % _NUMBERS + 1
        return Listing(self._last, node, turns)

    def taken(self, listing: Listing, rows: list[Row]) -> None:
        """The names of *listing* are *rows*."""
        listing.rows = rows
        self._lists[listing.number] = listing
        self._rows += len(rows)
        while len(self._lists) > 1 and (len(self._lists) > _BEGUN or self._rows > _ROWS):
            self.ended(next(iter(self._lists.values())))

    def ended(self, listing: Listing) -> None:
        """Its reader is at the end."""
        if self._lists.pop(listing.number, None) is not None:
            self._rows -= len(listing.rows)


def place_in(offset: int) -> int:
    """Which name of its list comes at *offset*."""
    return offset & (1 << _POSITION) - 1
