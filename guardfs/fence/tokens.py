"""Fencing tokens: a number per transcript that grows with every fence opened, and is never given twice. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MAX_TRANSCRIPTS = 200_000
"""Transcripts whose tokens are kept one by one. Beyond that the oldest half share one floor."""


class Tokens:
    """The last token of every transcript. Some 200 bytes each."""

    def __init__(self, floor: int = 0, limit: int = MAX_TRANSCRIPTS) -> None:
        self._last: dict[bytes, int] = {}
        self._floor = floor
        self._limit = limit

    @property
    def floor(self) -> int:
        """No transcript that has no token of its own gets one up to this."""
        return self._floor

    def __len__(self) -> int:
        return len(self._last)

    def last(self, transcript: bytes) -> int:
        """The last token given; the floor if none was."""
        return self._last.get(transcript, self._floor)

    def next(self, transcript: bytes) -> int:
        """A new token, larger than every earlier one of this transcript."""
        token = self._last.pop(transcript, self._floor) + 1
        self._last[transcript] = token  # at the end: the order is that of use
        if len(self._last) > self._limit:
            self._thin()
        return token

    def set(self, transcript: bytes, token: int) -> None:
        """*token* is the last one of *transcript*, as the guard before this one left it."""
        self._last.pop(transcript, None)
        self._last[transcript] = token

    def snapshot(self) -> dict[bytes, int]:
        """A copy of all, for the state directory, with `floor`."""
        return dict(self._last)

    def restore(self, last: Mapping[bytes, int], floor: int = 0) -> None:
        """Goes on from what was kept: no token falls behind one that was given."""
        self._floor = max(self._floor, floor)
        for transcript, token in last.items():
            if token > self.last(transcript):
                self._last[transcript] = token
        while len(self._last) > self._limit:
            self._thin()

    def _thin(self) -> None:
        names = list(self._last)
        for name in names[: len(names) // 2 + 1]:
            self._floor = max(self._floor, self._last.pop(name))
