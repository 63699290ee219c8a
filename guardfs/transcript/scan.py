"""Where the members of a JSON object stand in its text. Pure.

A JSON parser tells values, not places, and it wants the whole text. This finds the bytes of each member, also
in a text that is cut off. It does not judge: what is no JSON gives some members or none, never an error. Texts
are split at ASCII characters only, so broken UTF-8 in a string does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OPEN = re.compile(rb"[ \t\n\r]*+\{")
_KEY = re.compile(rb"[ \t\n\r]*+(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+", re.DOTALL)
_TEXT = re.compile(_STRING, re.DOTALL)
_PLAIN = re.compile(rb'[^\s,\]}"\[{]++')
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_COMMA = re.compile(rb"[ \t\n\r]*+,")

Member = tuple[bytes, int, int | None]
"""Key (unescaped, UTF-8), first byte of the value, and the byte after it; None where the text ends before it."""


def members(text: bytes, begin: int = 0) -> Iterator[Member]:
    """The members of the object that begins at *begin*, as far as the text goes, duplicates and all."""
    match = _OPEN.match(text, begin)
    while match:
        match = _KEY.match(text, match.end())
        if match is None:
            return
        key, value = match.group(1), match.end()
        end = _end(text, value)
        yield (_unescape(key) if b"\\" in key else key[1:-1]), value, end
        if end is None:
            return
        match = _COMMA.match(text, end)


def peek(text: bytes, inside: Collection[bytes] = (), longest: int = 1024) -> dict[str, Any] | None:
    """The strings, numbers and truth values that stand whole in the object *text*, which may be cut off.

    inside: keys whose value is looked into as well, if it is an object. Longer values than *longest* bytes are left
    out. None: the text is no object.
    """
    if _OPEN.match(text) is None:
        return None
    found: dict[str, Any] = {}
    for key, begin, end in members(text):
        name = key.decode("utf-8", "replace")
        found.pop(name, None)
        if text[begin : begin + 1] == b"{":
            if key in inside:
                found[name] = _peek_inner(text, begin, longest)
        elif end is not None and end - begin <= longest and text[begin : begin + 1] != b"[":
            try:
                found[name] = json.loads(text[begin:end].decode("utf-8", "replace"))
            except ValueError:
                return found
    return found


def _peek_inner(text: bytes, begin: int, longest: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, start, end in members(text, begin):
        if end is not None and end - start <= longest and text[start : start + 1] == b'"':
            try:
                found[key.decode("utf-8", "replace")] = json.loads(text[start:end].decode("utf-8", "replace"))
            except ValueError:
                break
    return found


def _end(text: bytes, begin: int) -> int | None:
    first = text[begin : begin + 1]
    if first == b'"':
        match = _TEXT.match(text, begin)
        return match.end() if match else None
    if first in (b"{", b"["):
        return _end_of_container(text, begin)
    match = _PLAIN.match(text, begin)  # a number can go on behind the end of the text
    return match.end() if match and match.end() < len(text) else None


def _end_of_container(text: bytes, begin: int) -> int | None:
    depth, position, size = 1, begin + 1, len(text)
    while True:
        match = _TO_BRACKET.match(text, position)
        position = match.end() if match else size
        if position >= size:
            return None
        bracket = text[position]
        if bracket == 0x22:  # a string that does not end
            return None
        depth += 1 if bracket in b"{[" else -1
        position += 1
        if not depth:
            return position


def _unescape(key: bytes) -> bytes:
    try:
        name: str = json.loads(key.decode("utf-8", "replace"))
    except ValueError:
        return key
    return name.encode("utf-8", "surrogatepass")
