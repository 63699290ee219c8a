"""Where each key and value of a TOML text stands: the positions that `tomllib` does not tell. Pure.

Lines and columns count from 1; columns count characters, not bytes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import msgspec
import tree_sitter_toml
from tree_sitter import Language, Node, Parser, Tree

Path = tuple[str | int, ...]
"""Of a key: names, and the places (from 0) in arrays: ("rules", 3, "when", "lane")."""

Place = tuple[int, int]
"""Line and column."""

_LANGUAGE = Language(tree_sitter_toml.language())
_STRUCTURE = frozenset({"array", "inline_table"})


class Places(msgspec.Struct, frozen=True, eq=False):
    """Where the keys and values of one text begin.

    keys: of each key, and of each item of an array. values: of what is behind the "=". twice: keys that were given
    again, with the first place and the second.
    """

    keys: dict[Path, Place] = {}
    values: dict[Path, Place] = {}
    twice: tuple[tuple[Path, Place, Place], ...] = ()

    def key(self, path: Path) -> Place:
        """Of the key *path*; of the table around it where that is not known; of the text's beginning at last."""
        while path:
            if path in self.keys:
                return self.keys[path]
            path = path[:-1]
        return (1, 1)

    def value(self, path: Path) -> Place:
        """Of the value of *path*; else that of the key."""
        return self.values.get(path) or self.key(path)


class Text:
    """A TOML text as tree-sitter sees it. Lines end in "\\n"."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._bytes = text.encode()
        self._lines = self._bytes.split(b"\n")
        self.tree: Tree = Parser(_LANGUAGE).parse(self._bytes)

    def place(self, node: Node) -> Place:
        """Where *node* begins."""
        row, column = node.start_point
        return row + 1, len(self._lines[row][:column].decode(errors="replace")) + 1

    def at(self, offset: int) -> Place:
        """Of the byte *offset*."""
        before = self._bytes[:offset].decode(errors="replace")
        return before.count("\n") + 1, len(before) - before.rfind("\n")

    def nodes(self) -> Iterator[tuple[Node, int]]:
        """Every node, in order, with the number of arrays and inline tables around it. Without recursion."""
        cursor = self.tree.walk()
        depth = 0
        while True:
            node = cursor.node
            assert node is not None
            yield node, depth
            if cursor.goto_first_child():
                depth += node.type in _STRUCTURE
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return
                parent = cursor.node
                assert parent is not None
                depth -= parent.type in _STRUCTURE

    def source(self, node: Node) -> str:
        """The characters of *node*."""
        return self._bytes[node.start_byte : node.end_byte].decode(errors="replace")


def find_places(text: Text) -> Places:
    """Where everything stands. The nesting must be bounded already (`read.py` sees to it)."""
    return _Finder(text).run()


class _Finder:
    def __init__(self, text: Text) -> None:
        self._text = text
        self._keys: dict[Path, Place] = {}
        self._values: dict[Path, Place] = {}
        self._twice: list[tuple[Path, Place, Place]] = []
        self._tables: dict[Path, int] = {}  # arrays of tables: how many there are so far
        self._defined: set[Path] = set()  # tables with a header of their own

    def run(self) -> Places:
        for child in self._text.tree.root_node.children:
            if child.type == "pair":
                self._pair(child, ())
            elif child.type == "table":
                self._table(child)
            elif child.type == "table_array_element":
                self._element(child)
        return Places(self._keys, self._values, tuple(self._twice))

    def _table(self, node: Node) -> None:
        prefix: Path = ()
        parts = self._parts(node)
        for name, place in parts:
            prefix = self._into((*prefix, name))
            self._keys.setdefault(prefix, place)
        if parts:
            if prefix in self._defined or (prefix and isinstance(prefix[-1], int)):
                self._twice.append((prefix, self._keys[prefix], parts[-1][1]))
            self._defined.add(prefix)
        self._pairs(node, prefix)

    def _element(self, node: Node) -> None:
        parts = self._parts(node)
        if not parts:
            return
        prefix: Path = ()
        for name, place in parts[:-1]:
            prefix = self._into((*prefix, name))
            self._keys.setdefault(prefix, place)
        name, place = parts[-1]
        array = (*prefix, name)
        self._keys.setdefault(array, place)
        prefix = (*array, self._tables.get(array, 0))
        self._tables[array] = self._tables.get(array, 0) + 1
        self._keys[prefix] = self._text.place(node)
        self._pairs(node, prefix)

    def _into(self, path: Path) -> Path:
        """A name in a header means the last table of an array of tables."""
        return (*path, self._tables[path] - 1) if path in self._tables else path

    def _pairs(self, node: Node, prefix: Path) -> None:
        for child in node.children:
            if child.type == "pair":
                self._pair(child, prefix)

    def _pair(self, node: Node, prefix: Path) -> None:
        parts = self._parts(node)
        if not parts:
            return
        for name, place in parts:
            prefix = (*prefix, name)
            first = self._keys.setdefault(prefix, place)
        if prefix in self._values:
            self._twice.append((prefix, first, parts[-1][1]))
            return
        kinds = [child.type for child in node.children]
        if "=" in kinds:  # the value is what comes next; a comment may stand behind it
            for value in node.children[kinds.index("=") + 1 :][:1]:
                self._value(value, prefix)

    def _value(self, node: Node, path: Path) -> None:
        self._values[path] = self._text.place(node)
        if node.type == "inline_table":
            self._pairs(node, path)
        elif node.type == "array":
            items = [child for child in node.children if child.is_named and child.type != "comment"]
            for index, child in enumerate(items):
                self._keys[(*path, index)] = self._text.place(child)
                self._value(child, (*path, index))

    def _parts(self, node: Node) -> list[tuple[str, Place]]:
        """The names of the key of a pair or a header, from left to right."""
        stack = [child for child in node.children if child.type in ("dotted_key", "bare_key", "quoted_key")][
            :1
        ]
        found: list[tuple[str, Place]] = []
        while stack:
            key = stack.pop()
            if key.type == "dotted_key":
                stack.extend(reversed(key.children))
            elif key.type in ("bare_key", "quoted_key"):
                found.append((_name(self._text.source(key)), self._text.place(key)))
        return found


def _name(source: str) -> str:
    """The name that a key's characters mean."""
    if source[:1] not in ('"', "'"):
        return source
    if "\\" in source:
        try:
            return str(tomllib.loads(f"k = {source}")["k"])
        except ValueError:
            return source
    return source[1:-1]
