"""Conditions of a policy, compiled into masks. Pure.

Every table of conditions (a lane's, a rule's, an `unless`) is a *conjunction* and has a bit. For each key
(``process.exe``, XX"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from guardfs.lanes.writer import Writer
from guardfs.policy.facts import id_form
from guardfs.policy.globs import Globs
from guardfs.policy.model import Conditions, Process, Record, When
from guardfs.transcript.records import RecordMeta

ResolveId = Callable[[Literal["user", "group"], str], int | None]
"""The number of a user or group by its name; None if there is none."""

Value = str | int | bool

_DELETED = " (deleted)"


class Asked(msgspec.Struct, frozen=True, eq=False):
    """One condition: the value of *key* must be, or match, one of *values*. As written in the policy."""

    key: str
    values: tuple[Value, ...]


# ---- what is known of an operation. Each gives the values of which one that matches is enough; none: unknown, and what
# ---- is unknown meets no condition.


def _exe(writer: Writer) -> tuple[str, ...]:
    # a program that was replaced while it runs (an upgrade) is matched by the path that it had
    process = writer.process
    return () if process is None or process.exe is None else (process.exe.removesuffix(_DELETED),)


def _args(writer: Writer) -> tuple[str, ...]:
    process = writer.process
    return () if process is None or not process.args else (" ".join(process.args),)


def _container(writer: Writer) -> tuple[str, ...]:
    return () if writer.process is None else (writer.process.container or "",)


def _ancestors(writer: Writer) -> tuple[str, ...]:
    return () if writer.process is None else tuple(name for _, name in writer.process.parents)


WRITER: dict[str, Callable[[Writer], tuple[Value, ...]]] = {
    "process.exe": _exe,
    "process.args": _args,
    "process.thread": lambda writer: (writer.comm,) if writer.comm else (),
    "process.main": lambda writer: (writer.main,) if writer.tgid else (),
    "process.user": lambda writer: (writer.uid,) if writer.uid >= 0 else (),
    "process.group": lambda writer: (writer.gid,) if writer.gid >= 0 else (),
    "process.container": _container,
    "process.ancestor": _ancestors,
}
"""What is known of a writer. User and group come with the request: they are known of every writer."""


def form_of(record: RecordMeta) -> tuple[str, ...]:
    """The form of a record's id; nothing where it is not known."""
    if record.id is None and record.oversize:  # it may stand behind what was looked at
        return ()
    return (id_form(record.id),)


RECORD: dict[str, Callable[[RecordMeta], tuple[Value, ...]]] = {
    "record.type": lambda record: () if record.type is None else (record.type,),
    "record.role": lambda record: () if record.role is None else (record.role,),
    "record.id": form_of,
    "record.provider": lambda record: () if record.provider is None else (record.provider,),
    "record.model": lambda record: () if record.model is None else (record.model,),
}
"""What is known of a record."""


def readable(record: RecordMeta | None) -> bool:
    """Whether *record* can meet conditions: one that is no record, or the first part of one, meets none, not even an
    empty table."""
    return record is not None and not record.invalid and not record.part


# ---- dimensions


class Values:
    """Values that must be equal, and the masks of those who ask for them."""

    def __init__(self) -> None:
        self._masks: dict[Value, int] = {}

    def add(self, value: Value, mask: int) -> None:
        """*mask* belongs to *value*."""
        self._masks[value] = self._masks.get(value, 0) | mask

    def freeze(self) -> None:
        """After the last `add`."""

    def of(self, value: Value) -> int:
        """The masks of *value*."""
        return self._masks.get(value, 0)


GLOBS = frozenset(
    (
        "process.exe process.args process.thread process.container process.ancestor path to record.type record.role "
        "record.provider record.model claim lane"
    ).split()
)
"""Keys whose values are globs."""


class Dimensions:
    """All conjunctions of one policy, by key.

    asking: key -> the conjunctions that ask about it. unresolved: key -> names of users or groups that nobody has.
    all: the mask of all conjunctions.
    """

    def __init__(self, ids: ResolveId) -> None:
        self._ids = ids
        self._tables: dict[str, Globs | Values] = {}
        self.asking: dict[str, int] = {}
        self.unresolved: dict[str, set[str]] = {}
        self.all = 0

    def add(self, position: int, conditions: Conditions | None) -> tuple[Asked, ...]:
        """Compile one conjunction to the bit *position*; what it asks, in the order of the model."""
        bit = 1 << position
        self.all |= bit
        asked = tuple(_flat(conditions)) if conditions is not None else ()
        for one in asked:
            self.asking[one.key] = self.asking.get(one.key, 0) | bit
            table = self._tables.get(one.key)
            if table is None:
                table = self._tables[one.key] = Globs() if one.key in GLOBS else Values()
            for value in one.values:
                known = self._number(one.key, value)
                if known is not None:
                    table.add(known, bit)  # type: ignore[arg-type]
                else:
                    self.unresolved.setdefault(one.key, set()).add(str(value))
        return asked

    def _number(self, key: str, value: Value) -> Value | None:
        if key in ("process.user", "process.group") and isinstance(value, str):
            return self._ids("user" if key == "process.user" else "group", value)
        return value

    def freeze(self) -> None:
        """After the last `add`."""
        for table in self._tables.values():
            table.freeze()

    def met(self, key: str, values: Sequence[Value]) -> int:
        """The conjunctions that are met as far as *key* goes, if these are its values."""
        asking = self.asking.get(key, 0)
        mask = self.all & ~asking
        if asking:
            table = self._tables[key]
            for value in values:
                mask |= table.of(value)  # type: ignore[arg-type]
        return mask


def _flat(conditions: Conditions) -> list[Asked]:
    """What is asked, by dotted key, in the order of the model."""
    asked: list[Asked] = []
    for key in conditions.__struct_fields__:
        value = getattr(conditions, key)
        if value is None or key not in _KEYS:
            continue
        if isinstance(value, Process | Record):
            inner = [(name, getattr(value, name)) for name in value.__struct_fields__]
            present = [(f"{key}.{name}", what) for name, what in inner if what is not None]
            if not present and isinstance(value, Record):
                present = [("record", True)]  # an empty table asks for a record, whichever
            asked += [Asked(name, _listed(what)) for name, what in present]
        else:
            asked.append(Asked(key, _listed(value)))
    return asked


_KEYS = frozenset(When.__struct_fields__)


def _listed(value: object) -> tuple[Value, ...]:
    if isinstance(value, list | tuple):
        return tuple(value)
    assert isinstance(value, str | int)
    return (value,)
