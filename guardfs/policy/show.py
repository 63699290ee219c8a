"""A policy as it is understood, written out as TOML: each value with where it comes from. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from guardfs.policy.model import Policy
from guardfs.policy.places import Path, Places

_LISTS = ("lanes", "rules", "examples")


def provenance(policy: Policy, places: Places, source: str) -> Iterator[tuple[Path, Any, str]]:
    """Every value in force: its path, the value, and ``FILE:LINE`` or ``default``. Lanes and rules in their order; in
    these, keys that are absent ask nothing, and are left out."""
    yield from _values(policy, (), places, source)


def _values(
    table: msgspec.Struct, path: Path, places: Places, source: str
) -> Iterator[tuple[Path, Any, str]]:
    for key in table.__struct_fields__:
        value = getattr(table, key)
        here = (*path, key)
        if value is None:
            continue
        if isinstance(value, msgspec.Struct):
            written = any((*here, name) in places.keys for name in value.__struct_fields__)
            if path and here in places.keys and not written:
                yield here, {}, _origin(here, places, source)
            # of conditions and examples only what is written; of the tables at the top all
            elif len(path) == 0 or here in places.keys:
                yield from _values(value, here, places, source)
        elif key in _LISTS and not path:
            for index, entry in enumerate(value):
                yield from _values(entry, (*here, index), places, source)
        elif here in places.keys or not (path and path[0] in _LISTS):
            yield here, msgspec.to_builtins(value), _origin(here, places, source)


def _origin(path: Path, places: Places, source: str) -> str:
    return f"{source}:{places.key(path)[0]}" if path in places.keys else "default"


def as_toml(policy: Policy, places: Places, source: str) -> str:
    """The policy as TOML again: it says the same, with a comment behind each value."""
    lines: list[str] = []
    header: Path = ()
    for path, value, origin in provenance(policy, places, source):
        depth = 2 if path[0] in _LISTS else 1
        table = path[:depth] if len(path) > depth or path[0] in _LISTS else ()
        if table != header:
            header = table
            lines += ["", f"[[{table[0]}]]" if len(table) == 2 else f"[{table[0]}]"]
        text = f"{'.'.join(map(str, path[len(table) :]))} = {toml(value)}"
        lines.append(f"{text:<48}  # {origin}")
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """*value* in TOML, on one line."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{}"
    # JSON writes texts, numbers and truth as TOML does; but DEL must be escaped, and pairs of surrogates are unknown
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
