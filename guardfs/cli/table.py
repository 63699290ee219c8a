"""Aligned columns for people, in colour on a terminal. What is too wide for it goes on in a second line, or is cut."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, TextIO

HELD = 500
"""Rows that are looked at before the first is printed, to know how wide a column must be. Later ones that are wider
push the rest to the right."""

GAP = 2
INDENT = 4


class Part(NamedTuple):
    """Some text of one colour (of ``ESC [ ... m``; "": none)."""

    text: str
    colour: str = ""


Cell = Part | Sequence[Part]


class Column(NamedTuple):
    """right: aligned to the right. second: it goes to a second line where the terminal is too narrow for all."""

    name: str
    right: bool = False
    second: bool = False


class Table:
    """Prints rows under a heading. Nothing is printed where there is no row.

    colour, width: of the output (`terminal`); width None: lines may be as long as they are. cut: lines that are too
    long all the same are cut.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        colour: bool,
        width: int | None,
        cut: bool = False,
        out: TextIO | None = None,
    ) -> None:
        self._columns = columns
        self._colour = colour
        self._width = width
        self._cut = cut
        self._out = out or sys.stdout
        self._held: list[Sequence[Cell]] | None = []
        self._widths: list[int] = []
        self._two = False

    def row(self, cells: Sequence[Cell]) -> None:
        """One row; printed now or later, in order. A blank last cell may be left out."""
        if self._held is None:
            self._print(cells)
            return
        self._held.append(cells)
        if len(self._held) >= HELD:
            self.begin()

    def begin(self) -> None:
        """Print what is held back. Later rows are printed at once."""
        if not self._held:
            return
        rows, self._held = self._held, None
        heading = [Part(column.name, "1") for column in self._columns]
        self._widths = [
            max(columns_of(_plain(cells[index])) for cells in (heading, *rows) if index < len(cells))
            for index in range(len(self._columns))
        ]
        if self._width is not None and any(column.second for column in self._columns):
            self._two = sum(self._widths) + GAP * (len(self._widths) - 1) > self._width
        self._print(heading)
        for cells in rows:
            self._print(cells)

    def line(self, text: str) -> None:
        """A line of its own, after the rows so far."""
        self.begin()
        _write(self._out, text + "\n")

    def flush(self) -> None:
        """Everything so far is to be seen now."""
        self.begin()
        self._out.flush()

    def _print(self, cells: Sequence[Cell]) -> None:
        if not self._two:
            self._line(range(len(cells)), cells, 0)
            return
        places = range(len(cells))
        self._line([at for at in places if not self._columns[at].second], cells, 0)
        self._line([at for at in places if self._columns[at].second], cells, INDENT)

    def _line(self, places: Sequence[int], cells: Sequence[Cell], indent: int) -> None:
        parts: list[Part] = [Part(" " * indent)] if indent else []
        for place in places:
            cell = cells[place]
            if indent and not _plain(cell):
                continue
            pad = self._widths[place] - columns_of(_plain(cell))
            if self._columns[place].right and pad > 0:
                parts.append(Part(" " * pad))
            parts += [cell] if isinstance(cell, Part) else cell
            if not self._columns[place].right and pad > 0:
                parts.append(Part(" " * pad))
            parts.append(Part(" " * GAP))
        while parts and not parts[-1].text.strip():
            parts.pop()
        if not parts and indent:
            return  # nothing that is worth a second line
        limit = self._width if self._cut else None
        _write(self._out, painted(parts, self._colour, limit).rstrip() + "\n")


def terminal() -> tuple[bool, int | None]:
    """Whether standard output takes colours, and how many columns it has (None: it is no terminal)."""
    if not sys.stdout.isatty():
        return False, None
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return colour, shutil.get_terminal_size().columns


def painted(parts: Sequence[Part], colour: bool, width: int | None = None) -> str:
    """*parts* as one text, cut to *width* columns with an ellipsis."""
    out: list[str] = []
    left = width if width is not None else 1 << 30
    for position, part in enumerate(parts):
        text = part.text
        taken = columns_of(text)
        rest = any(each.text.strip() for each in parts[position + 1 :])
        if taken > left or (taken == left and rest):
            text = _clip(text, left - 1) + "…" if left > 0 else ""
            left = 0
        else:
            left -= taken
        out.append(f"\x1b[{part.colour}m{text}\x1b[0m" if colour and part.colour and text else text)
        if left <= 0:
            break
    return "".join(out)


def columns_of(text: str) -> int:
    """How many columns of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _clip(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:index]
    return text


def _plain(cell: Cell) -> str:
    return cell.text if isinstance(cell, Part) else "".join(part.text for part in cell)


def _write(out: TextIO, text: str) -> None:
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))
