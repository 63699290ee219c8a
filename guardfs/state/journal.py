"""What the journal of staged changes holds, read without changing it: also while a guard writes it."""

from __future__ import annotations

import os
import re
from typing import Literal, TypeVar

import msgspec

from guardfs.errors import GuardError
from guardfs.state.branches import DIRECTORY, BranchFacts, GhostFacts
from guardfs.state.branches import FORMAT as BRANCH_FORMAT
from guardfs.state.directory import FORMAT

_NAME = re.compile(r"(\d+)\.(json|ghost)")


class Entry(msgspec.Struct, frozen=True):
    """A branch, or a file that has lost its name. transcript, file (of a ghost: the name that it has now): raw bytes
    below the mount. size: bytes of the branch itself, or of the ghost when it lost its name; base: of the file that the
    branch stands on. opened, written: ns since the epoch, 0 if not known. whole: it is to replace the file. begun:
    its rebase has begun."""

    number: int
    kind: Literal["branch", "ghost"]
    transcript: bytes
    lane: str
    size: int
    base: int = 0
    opened: int = 0
    written: int = 0
    whole: bool = False
    begun: bool = False
    file: bytes = b""
    removed: bool = False


def entries(state: str) -> list[Entry]:
    """All of the state directory *state*, by number. GuardError where it is none, or of a newer guardfs."""
    _check(state)
    path = os.path.join(state, DIRECTORY)
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise GuardError(f"{path}: {error.strerror}", "run it as root, or as the user who mounted") from None
    found: list[Entry] = []
    followed: set[int] = set()
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        try:
            if match[2] == "json":
                entry, follows = _branch(path, int(match[1]))
                followed.add(follows)
            else:
                entry = _ghost(path, int(match[1]))
        except FileNotFoundError:  # rebased meanwhile
            continue
        found.append(entry)
    return sorted((each for each in found if each.number not in followed), key=lambda each: each.number)


def _branch(path: str, number: int) -> tuple[Entry, int]:
    facts = _read(os.path.join(path, f"{number}.json"), BranchFacts)
    data = os.stat(os.path.join(path, f"{number}.data"))
    entry = Entry(
        number,
        "branch",
        facts.transcript,
        facts.lane,
        data.st_size,
        facts.base,
        facts.opened,
        data.st_mtime_ns if data.st_size else 0,
        facts.whole or facts.replaces,
        os.path.exists(os.path.join(path, f"{number}.merge")),
    )
    return entry, facts.follows


def _ghost(path: str, number: int) -> Entry:
    name = os.path.join(path, f"{number}.ghost")
    facts = _read(name, GhostFacts)
    opened = os.stat(name).st_mtime_ns
    return Entry(
        number,
        "ghost",
        facts.transcript,
        facts.lane,
        facts.size,
        opened=opened,
        file=facts.name,
        removed=facts.removed,
    )


_Facts = TypeVar("_Facts", BranchFacts, GhostFacts)


def _read(name: str, kind: type[_Facts]) -> _Facts:
    with open(name, "rb") as file:
        data = file.read()
    try:
        found = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise GuardError(f"{name}: not what guardfs wrote: {error}", "keep it, and ask its author") from None
    if found.format > BRANCH_FORMAT:
        raise GuardError(
            f"{name}: of format {found.format}, this guardfs knows {BRANCH_FORMAT}",
            "use the guardfs that wrote it, or newer",
        )
    return found


def _check(state: str) -> None:
    name = os.path.join(state, "format")
    try:
        with open(name, "rb") as file:
            found = msgspec.json.decode(file.read(), type=dict[str, int]).get("format", 0)
    except (FileNotFoundError, NotADirectoryError):
        raise GuardError(
            f"{state}: no state of a guard is there", "name the state directory with --state"
        ) from None
    except msgspec.MsgspecError:
        raise GuardError(f"{name}: not a state directory of guardfs", "name another with --state") from None
    except OSError as error:
        raise GuardError(f"{name}: {error.strerror}", "run it as root, or as the user who mounted") from None
    if found > FORMAT:
        raise GuardError(
            f"{name}: state of format {found}, this guardfs knows {FORMAT}",
            "use the guardfs that wrote it, or newer",
        )
