"""From bytes to the values of a TOML file, and the place of each. Pure.

`tomllib` says what the file means, tree-sitter where it stands. Where the two disagree, `tomllib` is right, and a place
is that of the nearest table around it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec

from guardfs.policy.places import Path, Place, Places, Text, find_places
from guardfs.policy.problem import Problem, key_text, quoted

__all__ = ["MAX_BYTES", "Document", "Path", "Place", "Places", "read"]

MAX_BYTES = 256 * 1024
"""The largest policy file. The largest that is known to be written by hand has 9 KiB."""

_MAX_DEPTH = 16
_MAX_PARTS = 16
_MAX_DIGITS = 64
_MAX_SYNTAX = 10


class Document(msgspec.Struct, frozen=True, eq=False):
    """What a file holds. problems: of its syntax; where there are any, there are no values."""

    values: dict[str, Any]
    places: Places
    problems: tuple[Problem, ...] = ()


def read(data: bytes) -> Document:
    """The values in *data* and their places, or what is wrong with the syntax. Never raises."""
    if len(data) > MAX_BYTES:
        return _refused(
            Problem(None, None, "", f"is larger than {MAX_BYTES // 1024} KiB", "no policy needs that")
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode(), error.start)
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        return _refused(Problem(line, column, "", what, "save the file as UTF-8"))
    if text.startswith("\ufeff"):
        return _refused(
            Problem(1, 1, "", "begins with a byte order mark", "save the file as UTF-8 without BOM")
        )
    text = text.replace("\r\n", "\n")
    bad = re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)
    if bad:
        line, column = _place(text, bad.start())
        return _refused(
            Problem(
                line, column, "", f"control character U+{ord(bad[0]):04X}", "TOML knows tab and newline only"
            )
        )
    seen = Text(text)
    bounded = _bounds(seen)
    if bounded:
        return _refused(bounded)
    places = find_places(seen)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        return _refused(Problem(1, 1, "", "is nested too deeply"))
    except ValueError as error:
        return Document({}, places, tuple(_syntax(text, error, places)))
    problems = tuple(_large(values, places))
    if seen.tree.root_node.has_error:
        places = _only_of(values, places)
    return Document({} if problems else values, places, problems)


def _refused(problem: Problem) -> Document:
    return Document({}, Places(), (problem,))


def _place(text: str, offset: int) -> Place:
    before = text[:offset]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _bounds(seen: Text) -> Problem | None:
    """What would cost `tomllib` its stack, or hours."""
    parts = 0
    for node, depth in seen.nodes():
        kind = node.type
        if depth > _MAX_DEPTH:
            line, column = seen.place(node)
            return Problem(line, column, "", f"arrays and tables are nested deeper than {_MAX_DEPTH}")
        if kind == "integer" and node.end_byte - node.start_byte > _MAX_DIGITS:
            line, column = seen.place(node)
            return Problem(line, column, "", "a number of so many digits", "an integer has at most 64 bits")
        if kind == ".":
            parts += 1
            if parts >= _MAX_PARTS:
                line, column = seen.place(node)
                return Problem(line, column, "", f"a key of more than {_MAX_PARTS} parts")
        elif kind in ("=", "]", "[", "]]", "[["):
            parts = 0
    # what tree-sitter could not read is not in its nodes
    if seen.tree.root_node.has_error and (dots := _MANY_PARTS.search(seen.text)):
        line, column = _place(seen.text, dots.start())
        return Problem(line, column, "", f"a key of more than {_MAX_PARTS} parts")
    return None


_MANY_PARTS = re.compile(
    r"""(?m)^[ \t]*\[{0,2}[ \t]*(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16}"""
)
_DECODE_ERROR = re.compile(
    r"(?s)(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)"
)


def _syntax(text: str, error: ValueError, places: Places) -> list[Problem]:
    """What `tomllib` found, in an operator's words; then, of the lines after it, what can be found without guessing."""
    lines = text.split("\n")
    problems: list[Problem] = []
    while True:
        problem = _one(lines, error, places)
        if problems and (problem.line or 0) <= (problems[-1].line or 0):
            return problems
        problems.append(problem)
        at = (problem.line or 1) - 1
        # only a line that is a key and its value, whole, can be left out without making nonsense of the others
        if len(problems) == _MAX_SYNTAX or not _SIMPLE.fullmatch(lines[at][:1000]):
            return problems
        lines[at] = ""
        try:
            tomllib.loads("\n".join(lines))
            return problems
        except RecursionError:
            return problems
        except ValueError as again:
            error = again
        if "annot" in str(
            error
        ):  # "Cannot declare", "Cannot overwrite": told with the places, at the first error
            return problems


_SIMPLE = re.compile(r"""[ \t]*[A-Za-z0-9_.-]+[ \t]*(=(?![ \t]*[\[{])(?!.*(\"\"\"|''')).*)?""")
_VALUE = re.compile(r"""[ \t]*[^=#]*=[ \t]*(?P<value>[^"'\[\]{}#,]*?)[ \t]*(#.*)?""")


def _one(lines: list[str], error: ValueError, places: Places) -> Problem:
    match = _DECODE_ERROR.fullmatch(str(error))
    if match is None:
        return Problem(1, 1, "", str(error))
    if match["line"]:
        line, column = int(match["line"]), int(match["column"])
    else:
        line = max(1, len("\n".join(lines).rstrip("\n").split("\n")))
        column = len(lines[line - 1]) + 1
    what = match["what"]
    here = lines[line - 1] if line <= len(lines) else ""
    if what.startswith("Cannot") and places.twice:
        path, first, second = places.twice[0]
        return Problem(*second, key_text(path), f"is given twice, first in line {first[0]}", "leave one out")
    value = _VALUE.fullmatch(here) if len(here) < 1000 else None
    word = value["value"] if value else ""
    if value and column > value.start("value"):
        start = value.start("value") + 1
        if word in ("True", "False", "TRUE", "FALSE"):
            return Problem(line, start, "", f"{word} is no value", f"write {word.lower()}")
        if word and "=" not in word and what.startswith(("Invalid value", "Expected newline")):
            quote = '"' if "\\" not in word else "'"
            return Problem(
                line, start, "", f"{quoted(word)} is no value", f"a text needs quotes: {quote}{word}{quote}"
            )
        if not word and what.startswith("Invalid value"):
            return Problem(line, start, "", "a value is missing behind '='")
    if what == "Invalid value" and not match["line"]:
        return Problem(line, column, "", "the file ends inside a value", "close it with ']', '}' or a quote")
    return Problem(line, column, "", *_WORDS.get(what, _other(what)))


_WORDS = {
    "Invalid statement": ("this is no key, table or comment", "write KEY = VALUE, [table], [[tables]] or # comment"),
    "Expected newline or end of document after a statement": ("something stands behind the value", "one key a line"),
    "Expected '=' after a key in a key/value pair": ("'=' is missing behind the key", ""),
    "Unterminated string": ("the text has no end", "close it with the quote that it began with"),
    "Illegal character '\\n'": ("the text has no end on its line", "close it with the quote that it began with"),
    'Expected "\'"': ("the text has no end on its line", "close it with the quote that it began with"),
    "Unclosed array": ("the list has no end, or a comma is missing in it", "close it with ']'"),
    "Unclosed inline table": ("the table has no end on its line, or a comma is missing in it", "close it with '}'"),
    "Invalid value": ("this is no value", 'a text needs quotes: "text"'),
    "Unescaped '\\' in a string": ("TOML does not know this escape", "write '\\\\', or use single quotes"),
    "Expected ']' at the end of a table declaration": ("']' is missing behind the table's name", ""),
    "Expected ']]' at the end of an array declaration": ("']]' is missing behind the table's name", ""),
}  # fmt: skip


def _other(what: str) -> tuple[str, str]:
    return what[:1].lower() + what[1:], ""


def _large(values: dict[str, Any], places: Places) -> list[Problem]:
    """Integers that TOML, JSON and the schema do not know."""
    problems = []
    for path, value in _leaves(values):
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            problems.append(Problem(*places.value(path), key_text(path), "a number of more than 64 bits"))
    return problems


def _leaves(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []
    stack: list[tuple[Path, Any]] = [(path, value)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack.extend(((*path, key), item) for key, item in value.items())
        elif isinstance(value, list):
            stack.extend(((*path, index), item) for index, item in enumerate(value))
        else:
            found.append((path, value))
    return found


def _only_of(values: dict[str, Any], places: Places) -> Places:
    """Without the places of what is not there: tree-sitter was confused by something that `tomllib` allows."""

    def there(path: Path) -> bool:
        value: Any = values
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    return Places(
        {path: place for path, place in places.keys.items() if there(path)},
        {path: place for path, place in places.values.items() if there(path)},
    )
