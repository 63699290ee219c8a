"""What each lane is shown of one transcript while fences are open, and where what it writes goes. Pure.

Three kinds of view: the owner's (the file itself, which it writes through to, with the attributes and the name that it
relies on), that of a lane with a branch, and the committed one, which everybody else sees.

    staging.view(standing, process, lane)       who looks sees what
    staging.target(standing, process, lane)     the branch that a staged change belongs to, made if need be
    staging.ready(owners, away, held)           branches whose time to be rebased has come
"""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple

from guardfs.fence.events import ProcessKey
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.relation import Standing

Kind = Literal["process", "side", "lane"]


_NOBODY: ProcessKey = (0, 0)


class Key(NamedTuple):
    """Whose a branch is: a process that keeps to the lock protocol, with its fence if it has one; the other lanes of
    such a process; or a lane without fences, whatever its processes."""

    kind: Kind
    process: ProcessKey
    lane: str


class View(enum.Enum):
    """Views that are no branch."""

    OWNER = "owner"
    COMMITTED = "committed"


class Branch:
    """What one lane has written behind a base, or instead of the whole file.

    number: names it in log and state. lane: for people. processes: whoever has used it. base: bytes of the committed
    file that it stands on; 0 if whole. exists: the transcript existed when it began. whole: it holds the whole file.
    size: bytes of its own. shown: what its lane is shown. order: of its first write, or of its fence's close. opened,
    written: wall clock, ns; written: of the last original write, 0 if there was none. closed: it is rebased, or given
    up. made: its lane sees a file; False where its owner relies on there being none, and has not made one.
    """

    __slots__ = (
        "base",
        "closed",
        "exists",
        "key",
        "lane",
        "made",
        "number",
        "opened",
        "order",
        "processes",
        "shown",
        "size",
        "whole",
        "written",
    )

    def __init__(
        self, number: int, key: Key, lane: str, base: Fingerprint, *, order: int, wall: int, inode: int = 0
    ) -> None:
        self.number = number
        self.key = key
        self.lane = lane
        self.processes = set() if key.process == _NOBODY else {key.process}
        self.exists = base.exists
        self.base = max(0, base.size)
        self.whole = not base.exists
        self.size = 0
        self.shown = base if base.exists else Fingerprint(0, inode, 0, wall, wall)
        self.order = order
        self.opened = wall
        self.written = 0
        self.closed = False
        self.made = True

    @property
    def length(self) -> int:
        """Bytes that its lane sees."""
        return self.base + self.size

    def used_by(self, process: ProcessKey) -> None:
        """*process* works on it."""
        if process != _NOBODY:
            self.processes.add(process)

    def wrote(self, size: int, wall: int) -> None:
        """Its own part has *size* bytes now."""
        self.size = size
        self.made = True
        self.written = wall
        self.shown = self.shown._replace(size=self.length, mtime_ns=wall, ctime_ns=wall)

    def replaced(self, size: int, wall: int, inode: int | None = None) -> None:
        """It holds the whole file now, of *size* bytes. inode: of the file that took the name, if one did."""
        self.whole, self.base = True, 0
        if inode is not None:
            self.shown = self.shown._replace(ino=inode)
        self.wrote(size, wall)

    def touched(self, mtime_ns: int | None, wall: int) -> None:
        """Its attributes were changed; mtime_ns: set to this, if at all."""
        if mtime_ns is not None:
            self.written = mtime_ns
        self.shown = self.shown._replace(
            mtime_ns=self.shown.mtime_ns if mtime_ns is None else mtime_ns, ctime_ns=wall
        )


class Hold(NamedTuple):
    """The owner is shown one state while the file is in another, by no doing of the owner's."""

    real: Fingerprint
    shown: Fingerprint


class Staging:
    """One transcript of which there is more than one view. hold: what the owner is shown. ghost: the file that the
    owner relies on has lost its name, or is to lose it; forgive: it has written past its own lock. lingers: the process
    whose fence has just closed, and that may still want to see its own reply last; nobody if (0, 0)."""

    def __init__(self, transcript: bytes) -> None:
        self.transcript = transcript
        self.branches: list[Branch] = []
        self.hold: Hold | None = None
        self.ghost = False
        self.forgive = False
        self.lingers = _NOBODY

    @property
    def idle(self) -> bool:
        """Whether there is one view again."""
        return not (self.branches or self.hold or self.ghost or self.forgive)

    @property
    def diverges(self) -> bool:
        """Whether the committed view is another than the owner's."""
        return self.ghost or self.hold is not None

    # ---- who sees what

    def view(self, standing: Standing, process: ProcessKey, lane: str) -> View | Branch:
        """The view of a look by *process*, whose lane is *lane* (only its first part counts)."""
        if standing.own or process == self.lingers:
            own = self.own(process)
            # Others make the file, meanwhile, that a silent owner relies on not to be there.
            if standing.silent and own is not None and not own.made:
                return View.COMMITTED
            return own or View.OWNER
        for branch in self.branches:
            if process in branch.processes and branch.key.kind != "side":
                return branch
        if standing.cycle:  # whoever keeps to the lock protocol is about to rely on the file itself
            return View.COMMITTED if standing.fenced or self.ghost else View.OWNER
        if self.ghost:  # its lane's branch, if there is one, belongs to the file that has lost its name
            return View.COMMITTED
        return self.of(_lane(lane)) or View.COMMITTED

    def target(self, standing: Standing, process: ProcessKey, lane: str) -> Branch | Key:
        """The branch of a change that is staged, or the key of the one to be made."""
        if standing.own:
            key = Key("process" if standing.owners else "side", process, "")
            return self.of(key) or key
        if standing.side:
            key = Key("side", process, "")
            return self.of(key) or key
        for branch in self.branches:
            if process in branch.processes and branch.key.kind != "side":
                return branch
        key = Key("process", process, "") if standing.cycle else _lane(lane)
        found = self.of(key)
        if found is not None:
            found.used_by(process)
        return found or key

    def of(self, key: Key) -> Branch | None:
        """The branch of *key*."""
        for branch in self.branches:
            if branch.key == key:
                return branch
        return None

    def adopt(self, process: ProcessKey) -> Branch | None:
        """*process*, which has just opened a fence, relies on what it saw: the branch that it has worked on until now,
        if any, is that of its fence from now on."""
        key = Key("process", process, "")
        for branch in self.branches:
            if process in branch.processes and branch.key.kind == "lane" and self.of(key) is None:
                branch.key = key
                return branch
        return None

    def disown(self, process: ProcessKey, relies: Fingerprint) -> None:
        """*process* has just opened a fence that relies on *relies*. If that is no file, what it has made on its branch
        is another lane's of it."""
        branch = self.own(process)
        if branch is not None and branch.made and not relies.exists and self.side(process) is None:
            branch.key = Key("side", process, "")

    def own(self, process: ProcessKey) -> Branch | None:
        """The branch of a process that keeps to the lock protocol."""
        return self.of(Key("process", process, ""))

    def side(self, process: ProcessKey) -> Branch | None:
        """The branch of the other lanes of an owner's process."""
        return self.of(Key("side", process, ""))

    # ---- what the owner is shown

    def held(self, real: Fingerprint) -> Fingerprint:
        """What the owner is shown of a file in the state *real*."""
        hold = self.hold
        if hold is None:
            return real
        if hold.real == real:
            return hold.shown
        self.hold = None  # it wrote itself, or somebody wrote below the mount: the truth holds
        return real

    def keep(self, shown: Fingerprint, real: Fingerprint) -> None:
        """Another lane has changed attributes: the file is in the state *real* now, and the owner goes on seeing
        *shown*."""
        self.hold = Hold(real, shown)

    # ---- the end

    def write_through(self, owners: tuple[ProcessKey, ...]) -> ProcessKey | None:
        """The first of *owners*, processes with an open fence, that relies on the file itself; at most one does."""
        for process in owners:
            if self.own(process) is None:
                return process
        return None

    def pins(self, owners: tuple[ProcessKey, ...], process: ProcessKey) -> bool:
        """Whether *process*, which has just opened a fence, needs a branch to see nothing of what the first owner
        writes."""
        if self.own(process) is not None:
            return False
        return self.write_through(owners) not in (None, process)

    def ready(
        self, owners: tuple[ProcessKey, ...], away: tuple[ProcessKey, ...], held: bool
    ) -> list[Branch] | None:
        """The branches to be rebased now, in order; None while somebody relies on the file, or has its lock. away:
        processes whose fence was closed by the idle timeout, and who may come back."""
        if held or self.write_through(owners) is not None:
            return None
        fenced = {*owners, *away}
        found = [
            branch
            for branch in self.branches
            if not (branch.key.kind != "lane" and branch.key.process in fenced)
        ]
        return sorted(found, key=lambda branch: branch.order)


def _lane(lane: str) -> Key:
    return Key("lane", _NOBODY, lane.partition(":")[0])
