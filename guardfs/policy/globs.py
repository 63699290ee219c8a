"""Many globs against one text, in some microseconds for a hundred of them. Pure.

Nearly all globs of a policy are a text with a star before or behind it, and nearly all fail. So it is asked first, in
one step for many of them, whether any text in them occurs at all.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable

_FEW = 8
"""So many texts are looked for one by one; so many findings are looked at one by one."""

_DEPTH = 30
"""Groups within groups of one expression; compiling it goes as deep."""

_Other = tuple[Callable[[str], object], int]


class Globs:
    """Globs (the shell's, case-sensitive; ``*`` matches "/" and newlines, too), and masks of those who ask for them."""

    def __init__(self) -> None:
        self._always = 0
        self._exact: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}
        self._prefixes: dict[str, int] = {}
        self._within: dict[str, int] = {}
        self._others: dict[str, int] = {}
        self._ends: dict[str, tuple[tuple[str, ...], list[tuple[str, int]]]] = {}
        self._begins: dict[str, tuple[tuple[str, ...], list[tuple[str, int]]]] = {}
        self._literals = _Literals({}, {})

    def add(self, glob: str, mask: int) -> None:
        """*mask* belongs to those texts that *glob* matches, too."""
        inner = glob.strip("*")
        table = self._others
        if not any(char in inner for char in "*?["):
            if inner == glob:
                table = self._exact
            elif not inner:
                self._always |= mask
                return
            else:
                before, behind = glob[0] == "*", glob[-1] == "*"
                table = self._within if before and behind else self._suffixes if before else self._prefixes
            glob = inner
        table[glob] = table.get(glob, 0) | mask

    def freeze(self) -> None:
        """After the last `add`."""
        self._ends = _by_character(self._suffixes, -1)
        self._begins = _by_character(self._prefixes, 0)
        self._literals = _Literals(self._within, self._others)

    def of(self, text: str) -> int:
        """The masks of all globs that match *text*, together."""
        found = self._always | self._exact.get(text, 0)
        if text:
            ends = self._ends.get(text[-1])
            if ends is not None and text.endswith(ends[0]):
                for literal, mask in ends[1]:
                    if text.endswith(literal):
                        found |= mask
            begins = self._begins.get(text[0])
            if begins is not None and text.startswith(begins[0]):
                for literal, mask in begins[1]:
                    if text.startswith(literal):
                        found |= mask
        return found | self._literals.of(text)


class _Literals:
    """Globs with a text in the middle (*within*), and all those of more parts (*others*)."""

    def __init__(self, within: dict[str, int], others: dict[str, int]) -> None:
        self._free: list[_Other] = []  # these hold no text that could be looked for
        self._items: dict[str, tuple[int, list[_Other]]] = {
            literal: (mask, []) for literal, mask in within.items()
        }
        common = Counter(piece for glob in others for piece in set(_pieces(glob)))
        for glob, mask in others.items():
            literal = min(_pieces(glob), key=lambda piece: (not piece, common[piece], -len(piece)))
            other = (re.compile(fnmatch.translate(glob)).match, mask)
            where = self._items.setdefault(literal, (0, []))[1] if literal else self._free
            where.append(other)
        self._search = re.compile(_trie(self._items)).search if len(self._items) > _FEW else None
        self._found = {literal: self._with_beginnings(literal) for literal in self._items}

    def _with_beginnings(self, literal: str) -> tuple[int, list[_Other]]:
        """Where *literal* stands, the literals that it begins with stand, too."""
        mask = 0
        others: list[_Other] = []
        for end in range(1, len(literal) + 1):
            more = self._items.get(literal[:end])
            if more is not None:
                mask, others = mask | more[0], others + more[1]
        return mask, others

    def of(self, text: str) -> int:
        found = 0
        for match, mask in self._free:
            if match(text):
                found |= mask
        if self._search is None:
            return found | self._each(text)
        hit, hits = self._search(text), 0
        while hit is not None:
            hits += 1
            if hits > _FEW:
                return found | self._each(text)
            mask, others = self._found[hit[0]]
            found |= mask
            for match, mask in others:
                if match(text):
                    found |= mask
            hit = self._search(text, hit.start() + 1)
        return found

    def _each(self, text: str) -> int:
        found = 0
        for literal, (mask, others) in self._items.items():
            if literal in text:
                found |= mask
                for match, mask in others:
                    if match(text):
                        found |= mask
        return found


def _by_character(table: dict[str, int], at: int) -> dict[str, tuple[tuple[str, ...], list[tuple[str, int]]]]:
    """The texts by their character *at*, which few texts have; in a form for `str.endswith`, and one by one."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for literal, mask in table.items():
        groups.setdefault(literal[at], []).append((literal, mask))
    return {char: (tuple(literal for literal, _ in items), items) for char, items in groups.items()}


def _pieces(glob: str) -> list[str]:
    """Texts that whatever *glob* matches must hold: to find one missing is cheaper than the glob. The one that is in
    the fewest globs tells most (nearly all transcripts hold ``.jsonl``)."""
    return re.split(r"[*?]+", glob.partition("[")[0])


def _trie(literals: Iterable[str], depth: int = 0) -> str:
    """An expression that finds the longest of *literals* at each place, with their common beginnings tried once."""
    if depth > _DEPTH:
        return f"(?:{'|'.join(map(re.escape, sorted(filter(None, literals), key=len, reverse=True)))})"
    groups: dict[str, list[str]] = {}
    for literal in literals:
        if literal:
            groups.setdefault(literal[0], []).append(literal[1:])
    branches = []
    for char, rests in sorted(groups.items()):
        branch = re.escape(char)
        while len(rests) == 1 and rests[0]:
            branch, rests = branch + re.escape(rests[0][0]), [rests[0][1:]]
        below = _trie(rests, depth + 1) if any(rests) else ""
        branches.append(f"{branch}(?:{below})?" if below and "" in rests else branch + below)
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})" if branches else ""
