"""Does a file's form fit the schema? All that does not, at once, in an operator's words. Pure.

It walks the values beside the structs of `model.py`, and accepts what the JSON Schema made from them accepts.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

from guardfs.policy.model import VERSION, Policy
from guardfs.policy.places import Path, Places
from guardfs.policy.problem import Problem, key_text, quoted

_POLICY = inspect.type_info(Policy)
assert isinstance(_POLICY, inspect.StructType)

_PATTERNS = {
    "(ms|s|m|h|d)": ("is no duration", 'write it like "500ms", "30s" or "15m"'),
    "[kKmMgG]": ("is no size", 'write it like "500000", "64M" or "1G"'),
    "[A-Za-z0-9_.@+-]": ("is no name for a lane", "use 1 to 64 letters, digits and the characters _ . @ + -"),
    "^E[A-Z0-9]": ("is no name of an error", 'write it like "EACCES"'),
    "transcript": (
        "is no name for a lock file",
        'write "{transcript}" where the transcript\'s name stands, or ""',
    ),
}
"""A part of the pattern in `model.py`; what to say of a text that does not fit, and the mend."""


def check(values: dict[str, Any], places: Places) -> Iterator[Problem]:
    """Every problem of form in *values*; none if they make a `Policy`."""
    version = values.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version != VERSION:
        age = "newer than" if version > VERSION else "none that"
        mend = "update guardfs" if version > VERSION else f"write version = {VERSION}"
        understood = f"version {version} is {age} this guardfs understands ({VERSION})"
        yield Problem(*places.value(("version",)), "version", understood, mend)
        if version > VERSION:  # its keys may be quite others
            return
        values = {**values, "version": VERSION}
    assert isinstance(_POLICY, inspect.StructType)
    yield from _Walk(places).table(values, _POLICY, (), ())


class _Walk:
    def __init__(self, places: Places) -> None:
        self._places = places

    def table(
        self,
        values: dict[str, Any],
        kind: inspect.StructType,
        path: Path,
        above: tuple[inspect.StructType, ...],
    ) -> Iterator[Problem]:
        fields = {field.encode_name: field for field in kind.fields}
        for key, value in values.items():
            here = (*path, key)
            if key in fields:
                yield from self.value(value, fields[key].type, here, (*above, kind))
            else:
                mend = _unknown(key, kind, above, path)
                yield Problem(
                    *self._places.key(here), key_text(here), f"there is no key {quoted(key)} here", mend
                )
        for key, field in fields.items():
            if field.required and key not in values:
                what, mend = _MISSING.get(key, (f"{quoted(key)} is missing", ""))
                yield Problem(*self._places.key(path), key_text(path), what, mend)

    def value(
        self, value: Any, kind: inspect.Type, path: Path, above: tuple[inspect.StructType, ...]
    ) -> Iterator[Problem]:
        kinds = [plain for plain in _plain(kind) if not isinstance(plain, inspect.NoneType)]
        fitting = next((plain for plain in kinds if _fits(value, plain)), None)
        if fitting is None:
            yield self._problem(
                path, f"expected {_words(kinds)}, found {_found(value)}", _mend_type(value, kinds, path)
            )
        elif isinstance(fitting, inspect.StructType):
            yield from self.table(value, fitting, path, above)
        elif isinstance(fitting, inspect.ListType | inspect.VarTupleType):
            if len(value) < (fitting.min_length or 0):
                yield self._problem(path, "the list is empty", "leave the key out, or name something")
            if fitting.max_length is not None and len(value) > fitting.max_length:
                yield self._problem(path, f"a list of {len(value)}; {fitting.max_length} are allowed")
            for index, item in enumerate(value):
                yield from self.value(item, fitting.item_type, (*path, index), above)
        elif isinstance(fitting, inspect.LiteralType):
            if value not in fitting.values:
                yield self._problem(path, *_not_of(value, fitting.values))
        elif isinstance(fitting, inspect.StrType):
            yield from self._text(value, fitting, path)
        elif isinstance(fitting, inspect.IntType):
            if fitting.ge is not None and value < fitting.ge:
                yield self._problem(path, f"{value} is too small", f"the least is {fitting.ge}")
            if fitting.le is not None and value > fitting.le:
                yield self._problem(path, f"{value} is too large", f"the most is {fitting.le}")

    def _text(self, value: str, kind: inspect.StrType, path: Path) -> Iterator[Problem]:
        if len(value) < (kind.min_length or 0):
            yield self._problem(path, "the text is empty", "leave the key out, or write something")
        elif kind.max_length is not None and len(value) > kind.max_length:
            yield self._problem(path, f"a text of {len(value)} characters; {kind.max_length} are allowed")
        # "$" of Python allows a newline behind it; that of JSON Schema does not
        elif kind.pattern is not None and not re.search(kind.pattern.replace("$", r"\Z"), value):
            pattern = kind.pattern
            words = next((words for part, words in _PATTERNS.items() if part in pattern), None)
            yield self._problem(
                path,
                f"{quoted(value)} {words[0]}" if words else f"does not fit {pattern}",
                words[1] if words else "",
            )

    def _problem(self, path: Path, what: str, mend: str = "") -> Problem:
        line, column = self._places.value(path)
        return Problem(line, column, key_text(path), what, mend)


_MISSING = {
    "version": ("'version' is missing", f"begin the file with: version = {VERSION}"),
    "rules": (
        "there are no rules",
        'end the file with: [[rules]], name = "everything else", verdict = "allow"',
    ),
    "verdict": ("'verdict' is missing", 'say what happens: "allow", "stage", "wait" or "deny"'),
    "name": ("'name' is missing", "give it a name; events and messages show it"),
    "event": ("'event' is missing", 'describe an operation: event = { operation = "append" }'),
}


def _plain(kind: inspect.Type) -> list[inspect.Type]:
    """The alternatives of a type, without what is only said about them."""
    if isinstance(kind, inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [plain for part in kind.types for plain in _plain(part)]
    return [kind]


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.StrType):
        return isinstance(value, str)
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.StructType):
        return isinstance(value, dict)
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return isinstance(value, list)
    if isinstance(kind, inspect.LiteralType):
        return type(value) is type(kind.values[0])
    raise AssertionError(f"model.py has grown a type that is not handled here: {kind}")


_ONE = {"StrType": "a text", "IntType": "a number", "BoolType": "true or false", "StructType": "a table"}
_MANY = {"StrType": "texts", "IntType": "numbers", "StructType": "tables"}


def _words(kinds: list[inspect.Type]) -> str:
    """What is expected."""
    said: list[str] = []
    for kind in kinds:
        if isinstance(kind, inspect.ListType | inspect.VarTupleType):
            inner = [_MANY.get(type(plain).__name__, "texts") for plain in _plain(kind.item_type)]
            said.append("a list of " + " and ".join(dict.fromkeys(inner)))
        elif isinstance(kind, inspect.LiteralType):
            said.append(_ONE["StrType"] if isinstance(kind.values[0], str) else str(kind.values[0]))
        else:
            said.append(_ONE[type(kind).__name__])
    return ", or ".join(dict.fromkeys(said))


def _found(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, datetime.date | datetime.time):
        return "a date or time"
    return type(value).__name__


def _mend_type(value: Any, kinds: list[inspect.Type], path: Path) -> str:
    def has(*types: type) -> bool:
        return any(isinstance(kind, types) for kind in kinds)

    words = [str(word) for kind in kinds if isinstance(kind, inspect.LiteralType) for word in kind.values]
    if words:
        return f"there are {', '.join(words)}"
    if isinstance(value, int | float) and not isinstance(value, bool) and has(inspect.StrType):
        return f'write it in quotes: "{value}"'
    if isinstance(value, str) and has(inspect.BoolType) and value.lower() in ("true", "false"):
        return f"write {value.lower()} without quotes"
    if isinstance(value, str) and has(inspect.IntType) and value.isascii() and value.isdigit():
        return f"write {value} without quotes"
    if isinstance(value, dict) and has(inspect.VarTupleType):
        return f"each of them begins with [[{path[-1]}]], in two pairs of brackets"
    if isinstance(value, list) and has(inspect.StructType) and not isinstance(path[-1], int):
        return f"there is one only: [{key_text(path)}], in one pair of brackets"
    if isinstance(value, str) and has(inspect.VarTupleType):
        return f'write ["{value}"]' if len(value) < 60 and value.isprintable() and '"' not in value else ""
    return ""


def _not_of(value: Any, allowed: tuple[Any, ...]) -> tuple[str, str]:
    if not isinstance(value, str):
        return f"expected {allowed[0]}, found {value}", ""
    words = [str(word) for word in allowed]
    near = difflib.get_close_matches(value.lower(), words, 1)
    mean = f"did you mean {quoted(near[0])}? " if near else ""
    return f"{quoted(value)} is none of its values", f"{mean}there are {', '.join(words)}"


def _unknown(key: str, kind: inspect.StructType, above: tuple[inspect.StructType, ...], path: Path) -> str:
    """Where the key *key*, unknown in *kind*, may belong."""
    for field in kind.fields:  # one level too high
        for plain in _plain(field.type):
            if isinstance(plain, inspect.StructType) and key in [inner.encode_name for inner in plain.fields]:
                if not path:
                    return f"it belongs under [{field.encode_name}]"
                return f"it belongs into {field.encode_name} = {{ {key} = ... }}"
    for outer in reversed(above):  # too low
        if key in [field.encode_name for field in outer.fields]:
            if outer is above[0]:
                return "it belongs to the file's top: put it above the first [table]"
            return "it belongs one level higher"
    names = [field.encode_name for field in kind.fields]
    near = difflib.get_close_matches(key.lower().replace("-", "_"), names, 1)
    return f"did you mean {quoted(near[0])}?" if near else f"there are {', '.join(names)}"
