"""Which bytes of a file are whose. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right


class Spans:
    """Parts of a file, none over another, each with a number. 24 bytes each.

    Appending costs the same however many there are; a change below the end as much as there are behind it.
    """

    def __init__(self) -> None:
        self._begins = array("q")
        self._ends = array("q")
        self._numbers = array("q")

    def __len__(self) -> int:
        return len(self._begins)

    @property
    def end(self) -> int:
        """The byte after the last part; 0 without any."""
        return self._ends[-1] if self._ends else 0

    def put(self, begin: int, end: int, number: int) -> None:
        """[begin, end) has *number* from now on, whatever it had."""
        if begin >= end:
            return
        if begin >= self.end:
            self._begins.append(begin)
            self._ends.append(end)
            self._numbers.append(number)
            return
        first = bisect_right(self._ends, begin)
        last = bisect_left(self._begins, end)
        parts = [(begin, end, number)]
        if first < last:
            if self._begins[first] < begin:
                parts.insert(0, (self._begins[first], begin, self._numbers[first]))
            if self._ends[last - 1] > end:
                parts.append((end, self._ends[last - 1], self._numbers[last - 1]))
        for place, column in enumerate((self._begins, self._ends, self._numbers)):
            column[first:last] = array("q", [part[place] for part in parts])

    def cut(self, size: int) -> None:
        """Nothing from *size* on is left."""
        keep = bisect_left(self._begins, size)
        for column in (self._begins, self._ends, self._numbers):
            del column[keep:]
        if self._ends and self._ends[-1] > size:
            self._ends[-1] = size

    def at(self, offset: int) -> int | None:
        """The number of the byte at *offset*; None if it has none."""
        place = bisect_right(self._begins, offset) - 1
        return self._numbers[place] if place >= 0 and offset < self._ends[place] else None
