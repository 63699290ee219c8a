"""One line to one `RecordMeta`, whatever its bytes: never an error. Pure.

A line is first decoded into the few keys that matter, which skips the rest at the speed of C. What holds another
type than it should is decoded whole. So is what only the strict decoder refuses and agents accept: half of a
surrogate pair, which programs in JavaScript write when they cut a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any, NoReturn, TypeVar

import msgspec

from guardfs.transcript.meta import INVALID, OVERSIZE, PEEK, RecordMeta
from guardfs.transcript.scan import peek as peek_object

Parse = Callable[[bytes], RecordMeta]
Build = Callable[[dict[str, Any]], RecordMeta]
_T = TypeVar("_T")

_FAILED = (msgspec.MsgspecError, ValueError, RecursionError)
_SURROGATE = re.compile(rb"\\u[dD]")

_decode_any = msgspec.json.Decoder().decode


def parser(shape: type[_T], fast: Callable[[_T], RecordMeta], build: Build, other: RecordMeta) -> Parse:
    """A function that reads one line, without its newline; it never raises.

    shape: the keys that matter; fast: from those to the meta data; build: the same from a whole object. other: what
    JSON that is no object is.
    """
    decode = msgspec.json.Decoder(shape).decode

    def parse(line: bytes) -> RecordMeta:
        try:
            return fast(decode(line))
        except msgspec.ValidationError:  # JSON, but a key holds another type than it should
            return _lenient(line, build, other)
        except _FAILED:
            return _lenient(line, build, other) if refused_for_text(line) else INVALID

    return parse


def _lenient(line: bytes, build: Build, other: RecordMeta) -> RecordMeta:
    try:
        found = _decode_any(line)
    except _FAILED:
        try:
            found = json.loads(line.decode("utf-8", "replace"), parse_int=_int, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return INVALID
    return build(found) if isinstance(found, dict) else other


def refused_for_text(line: bytes) -> bool:
    """Whether the strict decoder may have stumbled over a string only."""
    if _SURROGATE.search(line):
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) <= 20 else None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def peeker(build: Build, inside: Collection[bytes] = ()) -> Parse:
    """A function that reads the first bytes of a line. inside: keys of objects that *build* looks into."""

    def peek(head: bytes) -> RecordMeta:
        found = peek_object(head[:PEEK], inside)
        return OVERSIZE if found is None else msgspec.structs.replace(build(found), oversize=True)

    return peek
