"""Bytes become values with their places, or errors with one."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.policy.places import Path
from guardfs.policy.read import MAX_BYTES, read
from tests.unit.policy_tools import KEYS


def said(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [problem.text("p") for problem in read(data).problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 15m", "p:1:5: '15m' is no value; a text needs quotes: \"15m\""),
        ("\na = True # x", "p:2:5: True is no value; write true"),
        ("a =", "p:1:4: a value is missing behind '='"),
        ("a = 1\na = 2", "p:2:1: a: is given twice, first in line 1; leave one out"),
        ("[a]\nb = 1\n[a]", "p:3:2: a: is given twice, first in line 1; leave one out"),
        ("a = 'x\n", "p:1:7: the text has no end on its line; close it with the quote that it began with"),
        ("a = [1,\n", "p:1:8: the file ends inside a value; close it with ']', '}' or a quote"),
        ("[a\n", "p:1:3: ']' is missing behind the table's name"),
        (
            "é é",
            "p:1:1: this is no key, table or comment; write KEY = VALUE, [table], [[tables]] or # comment",
        ),
        ("a", "p:1:2: '=' is missing behind the key"),
        ("\ufeffa = 1", "p:1:1: begins with a byte order mark; save the file as UTF-8 without BOM"),
        ("a = '\0'", "p:1:6: control character U+0000; TOML knows tab and newline only"),
        (b"a = '\xc3\xa9'\nb = 1 # \xc3\xa9\xff", "p:2:10: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a = " + "[" * 5000 + "]" * 5000, "p:1:21: arrays and tables are nested deeper than 16"),
        ("a = " + "[" * 100_000, "p:1:1: is nested too deeply"),
        (".".join("a" * 5000) + " = 1", "p:1:32: a key of more than 16 parts"),
        ("a = " + "9" * 5000, "p:1:5: a number of so many digits; an integer has at most 64 bits"),
        ("a = 9223372036854775808", "p:1:5: a: a number of more than 64 bits"),
        ("a = 1979-13-01", "p:1:5: '1979-13-01' is no value; a text needs quotes: \"1979-13-01\""),
        (b"#" * (MAX_BYTES + 1), "p: is larger than 256 KiB; no policy needs that"),
    ],
)
def test_an_error_of_syntax_has_a_place_and_plain_words(text: str | bytes, expected: str) -> None:
    assert said(text)[0] == expected


def test_errors_on_lines_of_their_own_are_all_said() -> None:
    assert [line.split(" ")[0] for line in said("a = 15m\nb = 1\nc = tru\nd = \n")] == [
        "p:1:5:",
        "p:3:5:",
        "p:4:5:",
    ]


def test_a_windows_file_has_the_same_places() -> None:
    text = 'a = 1\n[[b]]\nc = ["x",\n "y"]\n'
    unix, windows = read(text.encode()), read(text.replace("\n", "\r\n").encode())
    assert (unix.values, unix.places.keys, unix.places.values) == (
        windows.values,
        windows.places.keys,
        windows.places.values,
    )


def test_dates_are_values() -> None:
    assert list(read(b"a = 1979-05-27\nb = 07:32:00").values) == ["a", "b"]


def test_what_is_not_known_has_the_place_of_the_table_around_it() -> None:
    places = read(b"\n[a]\nb = 1\n").places
    assert places.key(("a", "x", 3)) == (2, 2)
    assert places.key(("z",)) == (1, 1)


class Writer:
    """Writes a TOML document, and notes where each key and value begins."""

    def __init__(self) -> None:
        self.text = ""
        self.keys: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, tuple[int, int]] = {}

    def here(self) -> tuple[int, int]:
        return self.text.count("\n") + 1, len(self.text) - (self.text.rfind("\n") + 1) + 1

    def key(self, names: list[str], path: Path) -> Path:
        for index, name in enumerate(names):
            if index:
                self.text += " . "
            path = (*path, name)
            self.keys.setdefault(path, self.here())
            bare = name != "" and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
            literal = "'" not in name and name.isprintable()
            self.text += name if bare else f"'{name}'" if literal else json.dumps(name, ensure_ascii=False)
        return path

    def value(self, value: Any, path: Path) -> None:
        self.values[path] = self.here()
        if isinstance(value, list):
            self.text += "[ "
            for index, item in enumerate(value):
                self.keys[(*path, index)] = self.here()
                self.value(item, (*path, index))
                self.text += ",\n  # é ]\n " if index % 2 else ", "
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{"
            for index, (name, item) in enumerate(value.items()):
                self.text += ", " if index else " "
                self.key([name], path)
                self.text += " = "
                self.value(item, (*path, name))
            self.text += "}"
        elif isinstance(value, str) and "\n" in value:
            self.text += '"""\n' + value.replace("\\", "\\\\").replace('"', '\\"') + '"""'
        else:
            self.text += json.dumps(value, ensure_ascii=False)


SCALARS = st.integers(-99, 99) | st.booleans() | st.text(st.sampled_from('aé𝄞\n#"]=\\'), max_size=6)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)
DOCUMENTS = st.tuples(TABLES, st.dictionaries(KEYS, st.lists(TABLES, min_size=1, max_size=3), max_size=3))


@given(DOCUMENTS, st.lists(KEYS, min_size=2, max_size=3))
def test_every_key_and_value_is_where_it_was_written(
    document: tuple[dict[str, Any], dict[str, list[dict[str, Any]]]], dotted: list[str]
) -> None:
    top, arrays = document
    writer = Writer()
    for name, value in top.items():
        writer.text += "  "
        writer.key([name], ())
        writer.text += " = "
        writer.value(value, (name,))
        writer.text += " # é\n"
    if dotted[0] not in top:
        path = writer.key(dotted, ())
        writer.text += "="
        writer.value(7, path)
        writer.text += "\n"
    for name, tables in arrays.items():
        if name in top or name == dotted[0]:
            continue
        for index, table in enumerate(tables):
            writer.keys[(name, index)] = writer.here()
            writer.text += "[["
            writer.key([name], ())
            writer.text += "]]\n"
            for key, value in table.items():
                writer.key([key], (name, index))
                writer.text += " = "
                writer.value(value, (name, index, key))
                writer.text += "\n"
            writer.text += "["
            writer.key([name, "\N{SNOWMAN} sub"], ())
            writer.keys.setdefault(
                (name, index, "\N{SNOWMAN} sub"), writer.keys.pop((name, "\N{SNOWMAN} sub"))
            )
            writer.text += "]\n"
    found = read(writer.text.encode())
    assert found.values == tomllib.loads(writer.text)
    assert found.problems == ()
    assert found.places.keys == writer.keys
    assert found.places.values == writer.values
