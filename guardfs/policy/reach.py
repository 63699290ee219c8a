"""Which entries of a list can never match, because an earlier one always does. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from guardfs.policy.model import Conditions, Process, Record

Asks = Mapping[str, tuple[str | int | bool, ...]]
"""Conditions by their dotted key; of each value list, one that holds is enough."""

_WILD = "*?["
_EXACT = frozenset(
    "operation file lock fence process.main process.user process.group record.id record.continues record".split()
)
"""Keys whose values are words; those of all others are globs."""


def asks(conditions: Conditions | None) -> dict[str, tuple[str | int | bool, ...]]:
    """All that *conditions* asks. An empty table `record` asks for a record, whichever; an empty `process` nothing."""
    found: dict[str, tuple[str | int | bool, ...]] = {}
    if conditions is None:
        return found
    for key in conditions.__struct_fields__:
        value = getattr(conditions, key)
        if key in ("name", "description", "within", "unless") or value is None:
            continue
        if isinstance(value, Process | Record):
            if isinstance(value, Record):
                found["record"] = (True,)
            for inner in value.__struct_fields__:
                if getattr(value, inner) is not None:
                    found[f"{key}.{inner}"] = _listed(getattr(value, inner))
        else:
            found[key] = _listed(value)
    return found


def _listed(value: object) -> tuple[str | int | bool, ...]:
    if isinstance(value, list | tuple):
        return tuple(value)
    assert isinstance(value, str | int)
    return (value,)


def covers(earlier: Asks, later: Asks) -> bool:
    """Whether all that meets *later* certainly meets *earlier*."""
    return all(
        key in later and all(any(_wider(key, first, then) for first in values) for then in later[key])
        for key, values in earlier.items()
    )


def _wider(key: str, first: str | int | bool, then: str | int | bool) -> bool:
    """Whether the value *first* stands for all that *then* stands for."""
    if first == then:
        return True
    if key in _EXACT or not isinstance(first, str) or not isinstance(then, str):
        return False
    if not first.strip("*"):
        return True
    if not any(char in then for char in _WILD):
        return fnmatch.fnmatchcase(then, first)
    # a glob under a glob: certain only where each of its characters stands for itself in the wider one
    return "?" not in first and "[" not in first and "[" not in then and fnmatch.fnmatchcase(then, first)
