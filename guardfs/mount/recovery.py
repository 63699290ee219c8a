"""What a guard that ended has left in the journal is brought to its end: at the next mount, or by `guardfs recover`.

No one relies on a transcript then, so every branch is rebased, oldest first, and every file that had lost its name is
seen to. Doing it twice is the same as doing it once.
"""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

from guardfs.audit.event import Notice
from guardfs.closing import let_go
from guardfs.mount.backing import Backing
from guardfs.mount.merging import Merged, Merger
from guardfs.state.branches import BranchFacts, BranchFile, BranchStore, GhostFacts, read_all

log = logging.getLogger("guardfs.views")

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Recovered(NamedTuple):
    """One branch of the journal. merged: what became of it, None if it could not be rebased, for the reason *error*."""

    transcript: bytes
    lane: str
    merged: Merged | None
    error: str = ""


def stamp(wall: int) -> str:
    """ns since the epoch, for the name of a file: ``2026-05-23T03-37-47.123456Z``."""
    return f"{datetime.fromtimestamp(wall / 1e9, UTC):%Y-%m-%dT%H-%M-%S.%f}Z"


def notice_of(found: Recovered, wall: int) -> Notice:
    """What the log says of it; wall: ns since the epoch."""
    facts: dict[str, Any] = {"lane": found.lane}
    if found.merged is None:
        facts["error"] = found.error
    else:
        facts |= {"result": found.merged.result, "bytes": found.merged.added, "records": found.merged.records}
        if found.merged.result == "conflict":
            facts["file"] = found.merged.name.decode("utf-8", "backslashreplace")
    return Notice("recovered", wall, facts, found.transcript)


def recover(store: BranchStore, merger: Merger, root_fd: int, below: Backing) -> list[Recovered]:
    """Bring all that *store* holds of the directory *root_fd* to its end. What cannot be done for now stays there.

    Of a transcript what was begun comes first, since it knows the file as it was; then what its owner wrote to a file
    that had lost its name; then the others as they began. Behind one that cannot be done, the others wait.
    """
    found: list[Recovered] = []
    stuck: set[bytes] = set()
    resting: dict[bytes, tuple[int, bytes]] = {}
    for number, ghost in sorted(store.load().items()):
        try:
            if not _lay(store, number, ghost, root_fd, below):
                resting[ghost.transcript] = number, ghost.name
        except Exception as error:  # what it wrote may be on a branch already, and would be carried once more
            stuck.add(ghost.transcript)
            found.append(Recovered(ghost.transcript, ghost.lane, None, _why(ghost.transcript, error)))
    for file in sorted(store.files.values(), key=lambda file: _order(store, file)):
        facts = file.facts
        if facts.transcript in stuck:
            found.append(
                Recovered(facts.transcript, facts.lane, None, "another branch is to be rebased before it")
            )
            continue
        directory, name = os.path.split(resting.get(facts.transcript, (0, facts.transcript))[1])
        merged, failure = None, ""
        try:
            dir_fd = os.open(directory or b".", _DIRECTORY, dir_fd=root_fd)
            try:
                merged = merger.merge(file, dir_fd, name, stamp(time.time_ns()))
            finally:
                let_go(dir_fd)
        except Exception as error:
            failure = _why(facts.transcript, error)
            stuck.add(facts.transcript)
        if merged is None or merged.result != "empty":
            found.append(Recovered(facts.transcript, facts.lane, merged, failure))
    for transcript, (number, name) in resting.items():
        if transcript in stuck:
            continue
        try:
            store.rest(number)
        except OSError as error:  # the next guard finds that nothing waits
            log.warning("%s: its note cannot be removed: %s", os.fsdecode(name), error.strerror)
    return found


def _why(transcript: bytes, error: Exception) -> str:
    """For people. An error of the guard's own keeps it from nothing else."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    log.error("%s: internal error while it was recovered", os.fsdecode(transcript), exc_info=error)
    return f"internal error: {error}"


def _order(store: BranchStore, file: BranchFile) -> tuple[object, ...]:
    try:
        begun = store.begun(file) is not None
    except OSError:  # it will be said when it is to be rebased
        begun = True
    return (not begun, file.facts.key != "ghost", file.facts.opened, file.number)


def _lay(store: BranchStore, number: int, ghost: GhostFacts, root_fd: int, below: Backing) -> bool:
    """A file had lost its name under its owner: what that wrote since becomes a branch of whatever has the name now.
    False: nothing has; the transcript's branches belong to the file by its new name, and its note stays until they are
    there."""
    waits = any(
        file.facts.transcript == ghost.transcript and (file.size or file.facts.whole)
        for file in store.files.values()
    )
    waits = waits and number not in store.carried and not _exists(ghost.transcript, root_fd, below)
    try:
        fd = below.open(ghost.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    except FileNotFoundError:  # the name was not taken away, or the file is gone for good
        store.rest(number)
        return True
    try:
        if waits:  # a branch that holds the whole file may have taken its place already
            return False
        st = below.fstat(fd)
        if (st.st_ino, st.st_dev) != (ghost.inode, ghost.device):
            store.rest(number)
            return True
        tail = read_all(below.pread, fd, max(0, st.st_size - ghost.size), ghost.size)
    finally:
        let_go(fd)
    carried = number in store.carried
    named = carried or (ghost.anew and _exists(ghost.transcript, root_fd, below))
    if tail and named and not carried:
        store.create(
            lambda new: BranchFacts(
                number=new,
                transcript=ghost.transcript,
                lane=ghost.lane or "owner",
                key="ghost",
                exists=False,
                whole=True,
                opened=st.st_mtime_ns,
            ),
            [tail],
            follows=number,
            written=st.st_mtime_ns,
            synced=ghost.removed,  # its owner may have called fsync, and the file that has it is about to go
        )
    if ghost.removed and (named or not tail):
        below.unlink(ghost.name, dir_fd=root_fd)
        store.step("ghost.removed")
    store.rest(number)
    return True


def _exists(name: bytes, root_fd: int, below: Backing) -> bool:
    try:
        below.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
