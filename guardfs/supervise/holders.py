"""Who keeps a mount busy: open files, working directories, roots and mappings on its device."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple


class Holder(NamedTuple):
    """A process and one thing of its that lies on the mount."""

    pid: int
    name: str
    what: str


def _links(pid: str) -> list[tuple[str, str]]:
    """(what, target) of the links in /proc/PID that can hold a mount."""
    found = []
    for what in ("cwd", "root", "exe"):
        try:
            found.append((what, os.readlink(f"/proc/{pid}/{what}")))
        except OSError:
            continue
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.append((f"fd {number}", os.readlink(f"/proc/{pid}/fd/{number}")))
            except OSError:
                continue
    except OSError:
        pass
    return found


def holders(path: str, limit: int = 5, besides: Collection[int] = ()) -> list[Holder]:
    """Processes that use something below *path*, at most *limit*, leaving out the process ids in *besides*.

    Decided by names, so that a hung mount is not touched.
    """
    found: list[Holder] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid() or int(pid) in besides:
            continue
        for what, target in _links(pid):
            if target == path or target.startswith(path + "/"):
                try:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        name = file.read().strip()
                except OSError:
                    break
                shown = os.path.relpath(target, path)
                found.append(Holder(int(pid), name, f"{what}: {shown}"))
                break
        if len(found) >= limit:
            break
    return found


def described(found: list[Holder]) -> str:
    """One line for people."""
    if not found:
        return "a process that the guard may not look into"
    return ", ".join(f"{holder.name}[{holder.pid}] ({holder.what})" for holder in found)
