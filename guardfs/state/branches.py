"""The journal of staged changes: what a lane has written, in the state directory, before its call returns.

    branches/7.json     what branch 7 is (`BranchFacts`)
    branches/7.data     its bytes
    branches/7.merge    its rebase has begun (`Intent`)
    branches/7.out      the bytes that the rebase adds to the transcript
    branches/7.ghost    a file whose name was taken away under its owner (`GhostFacts`)

Every file but `.data` is put in place whole. A branch is there as soon as its `.json` is, and gone when that is gone.
What was written survives a killed daemon; what was synced, a power cut.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from guardfs.errors import GuardError

FORMAT = 1
"""Of these files. A newer one is refused."""

DIRECTORY = "branches"
MAX_BRANCH = 64 << 20
MAX_TOTAL = 1 << 30
"""Bytes of one branch, and of all; the policy may say otherwise."""

_NAME = re.compile(r"(\d+)\.(json|data|merge|out|ghost)(\.tmp)?")


class BranchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a branch is. transcript: its path below the mount, raw bytes. lane, key, process: whose it is. base: bytes
    of the file that it stands on. exists: that file existed. whole: the branch holds all of the file. replaces: another
    file is to take the name. inode, device: of the file that it stands on, 0 if none. mode, uid, gid: of the file to be
    made, where there was none, or another takes its name. made: its lane sees a file, be it an empty one. opened: ns
    since the epoch. follows: the branch or ghost whose place it took."""

    format: int = FORMAT
    number: int
    transcript: bytes
    lane: str
    key: str = "lane"
    process: tuple[int, int] = (0, 0)
    base: int = 0
    exists: bool = True
    whole: bool = False
    replaces: bool = False
    made: bool = True
    inode: int = 0
    device: int = 0
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    opened: int = 0
    follows: int = 0


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A rebase that has begun. size: of the transcript before it, bytes; inode, device: which file that was, 0 where
    there was none. added: bytes of `.out`. replaces: the transcript becomes the branch's data and then `.out`; else
    `.out` is appended. mtime: what the file's modification time becomes, ns. temporary: name of the file that takes the
    place of *name*, which is the transcript's or, of a conflict, one of its own."""

    format: int = FORMAT
    size: int
    inode: int = 0
    device: int = 0
    added: int = 0
    replaces: bool = False
    mtime: int = 0
    temporary: bytes = b""
    name: bytes = b""


class GhostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file that lost its name to another lane while its owner relies on it. transcript: that name; name: the one that
    it has now; both below the mount. size: at that moment, bytes: what is behind it was written by the owner since.
    removed: it was removed: it goes when nothing was written since. anew: another file was made under that name while
    the owner still relied on this one, so what that wrote belongs there, too."""

    format: int = FORMAT
    transcript: bytes
    name: bytes
    inode: int
    device: int
    size: int
    removed: bool
    anew: bool = False
    lane: str = ""


class BranchFile:
    """One branch on the disk. fd: its data, open to read and write. size: of that. synced: some of it was brought to
    the disk, or may have been, and must not leave it before it is there in another file."""

    __slots__ = ("_store", "facts", "fd", "size", "synced")

    def __init__(self, store: BranchStore, facts: BranchFacts, fd: int, size: int) -> None:
        self._store = store
        self.facts = facts
        self.fd = fd
        self.size = size
        self.synced = False

    @property
    def number(self) -> int:
        return self.facts.number

    def write(self, data: bytes, offset: int) -> int:
        """pwrite(2) of all of *data*; OSError(ENOSPC) also where the journal's bound would be passed."""
        store = self._store
        grown = max(0, offset + len(data) - self.size)
        self._bound(grown)
        store.step("branch.write")
        done = 0
        try:
            while done < len(data):
                done += store.pwrite(self.fd, data[done:] if done else data, offset + done)
        except OSError:
            if grown:
                self._cut(self.size)  # nothing of it, or all
            raise
        store.step("branch.written")
        self.size += grown
        store.total += grown
        return len(data)

    def _bound(self, grown: int) -> None:
        store = self._store
        if grown and (self.size + grown > store.max_branch or store.total + grown > store.max_total):
            raise OSError(errno.ENOSPC, "the journal's bound is reached (fence.max_branch, fence.max_staged)")

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self.fd, size)
        except OSError:
            pass

    def truncate(self, size: int) -> None:
        """ftruncate(2); bounded like `write`."""
        self._bound(max(0, size - self.size))
        self._store.step("branch.truncate")
        os.ftruncate(self.fd, size)
        self._store.total += size - self.size
        self.size = size

    def read(self, size: int, offset: int) -> bytes:
        """pread(2) of the branch's own bytes."""
        return os.pread(self.fd, size, offset)

    def sync(self) -> None:
        """fsync(2); may be called by any thread."""
        self.synced = True
        os.fsync(self.fd)
        self._store.sync(self.number)

    @property
    def written(self) -> int:
        """When something was written last, ns since the epoch."""
        return os.fstat(self.fd).st_mtime_ns


class BranchStore:
    """All branches of one guarded directory. Errors of the disk are OSError. Not thread-safe, but for `sync`.

    step: called with the name of each step, so that tests can end the process there. pwrite: likewise, to fail there.
    """

    def __init__(self, state: str, max_branch: int = MAX_BRANCH, max_total: int = MAX_TOTAL) -> None:
        self.path = os.path.join(state, DIRECTORY)
        self.max_branch = max_branch
        self.max_total = max_total
        self.total = 0
        self.step: Callable[[str], None] = lambda name: None
        self.pwrite: Callable[[int, bytes, int], int] = os.pwrite
        self._next = 1
        self.files: dict[int, BranchFile] = {}
        self.carried: set[int] = set()
        """Ghosts of which a branch has what was written there."""

    # ---- branches

    def create(
        self,
        make: Callable[[int], BranchFacts],
        content: Iterable[bytes] = (),
        follows: int = 0,
        written: int = 0,
    ) -> BranchFile:
        """A new branch that holds *content*; *make* is given its number. Whole, or not at all.

        It takes the place of the branch *follows*; of a ghost it takes what was written there, which `rest` must be
        called for. written: when *content* was, ns since the epoch, if not now.
        """
        self._directory()
        number = self._next
        facts = make(number)
        if follows:
            facts = msgspec.structs.replace(facts, follows=follows)
        fd = os.open(self._file(number, "data"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        file = BranchFile(self, facts, fd, 0)
        try:
            self.step("branch.data-made")
            for chunk in content:
                file.write(chunk, file.size)
            if written:
                os.utime(fd, ns=(written, written))
            self._put(number, "json", msgspec.json.encode(facts))
        except BaseException:
            os.close(fd)
            self.total -= file.size
            self._remove(number, "data")
            raise
        self._next = number + 1
        self.files[number] = file
        self.step("branch.made")
        if follows in self.files:
            file.synced = self.files[follows].synced
            self.drop(self.files[follows])
        return file

    def describe(self, file: BranchFile, facts: BranchFacts) -> None:
        """*facts* hold of *file* from now on."""
        self._put(file.number, "json", msgspec.json.encode(facts))
        file.facts = facts

    def drop(self, file: BranchFile) -> None:
        """The branch is no more: rebased, or given up. The first step of it decides."""
        number = file.number
        self._remove(number, "json")
        self.step("branch.dropped")
        for kind in ("merge", "out", "data"):
            self._remove(number, kind)
        if self.files.pop(number, None) is not None:
            self.total -= file.size
            os.close(file.fd)
            file.fd = -1

    # ---- rebasing

    def begin(self, file: BranchFile, intent: Intent, added: bytes) -> None:
        """Say what the rebase is about to do."""
        if added:
            self._put(file.number, "out", added)
            self.step("merge.out")
        self._put(file.number, "merge", msgspec.json.encode(intent))
        self.step("merge.begun")

    def begun(self, file: BranchFile) -> tuple[Intent, bytes] | None:
        """What `begin` said of *file*, and the bytes; None if no rebase of it has begun."""
        try:
            intent = _decode(self._read(file.number, "merge"), Intent, self._file(file.number, "merge"))
        except FileNotFoundError:
            return None
        return intent, (self._read(file.number, "out") if intent.added else b"")

    def forget(self, file: BranchFile) -> None:
        """The rebase that was begun did nothing, and is not to be finished."""
        self._remove(file.number, "merge")
        self._remove(file.number, "out")

    # ---- ghosts

    def haunt(self, ghost: GhostFacts) -> int:
        """Note a ghost; its number."""
        self._directory()
        number, self._next = self._next, self._next + 1
        self._put(number, "ghost", msgspec.json.encode(ghost))
        self.step("ghost.noted")
        return number

    def renew(self, number: int, ghost: GhostFacts) -> None:
        """More is known of a ghost."""
        self._put(number, "ghost", msgspec.json.encode(ghost))
        self.step("ghost.renewed")

    def rest(self, number: int) -> None:
        """The ghost is gone."""
        self._remove(number, "ghost")
        self.step("ghost.gone")

    # ---- from the disk

    def load(self) -> dict[int, GhostFacts]:
        """Read what a guard that ended has left: fills `files` and `carried`, answers the ghosts. Raises GuardError for
        files of a newer guardfs; what was never finished is removed."""
        found: dict[int, set[str]] = {}
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return {}
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            if match[3]:
                os.unlink(os.path.join(self.path, name))
                continue
            found.setdefault(int(match[1]), set()).add(match[2])
        try:
            return self._load(found)
        except BaseException:
            self.close()
            raise

    def _load(self, found: dict[int, set[str]]) -> dict[int, GhostFacts]:
        ghosts: dict[int, GhostFacts] = {}
        followed: set[int] = set()
        for number in sorted(found, reverse=True):  # a later one may have taken an earlier one's place
            kinds = found[number]
            self._next = max(self._next, number + 1)
            if "ghost" in kinds:
                ghosts[number] = _decode(self._read(number, "ghost"), GhostFacts, self._file(number, "ghost"))
            elif "json" not in kinds or number in followed:
                for kind in ("json", "merge", "out", "data"):
                    self._remove(number, kind)
            else:
                followed.add(self._load_one(number).facts.follows)
        self.files = dict(sorted(self.files.items()))
        self.carried = followed & ghosts.keys()
        return ghosts

    def _load_one(self, number: int) -> BranchFile:
        facts = _decode(self._read(number, "json"), BranchFacts, self._file(number, "json"))
        fd = os.open(self._file(number, "data"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(fd).st_size
        file = self.files[number] = BranchFile(self, facts, fd, size)
        file.synced = True  # for all that is known
        self.total += size
        return file

    def close(self) -> None:
        """Close what is open; the files stay."""
        for file in self.files.values():
            os.close(file.fd)
        self.files.clear()

    def sync(self, number: int) -> None:
        """Bring what is said of branch *number*, and the names, to the disk. May be called by any thread."""
        for path in (self._file(number, "json"), self.path):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rebased meanwhile
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _directory(self) -> None:
        os.makedirs(self.path, mode=0o700, exist_ok=True)

    def _file(self, number: int, kind: str) -> str:
        return os.path.join(self.path, f"{number}.{kind}")

    def _put(self, number: int, kind: str, data: bytes) -> None:
        path = self._file(number, kind)
        fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            try:
                done = 0
                while done < len(data):
                    done += self.pwrite(fd, data[done:] if done else data, done)
            finally:
                os.close(fd)
            os.rename(f"{path}.tmp", path)
        except OSError:
            os.unlink(f"{path}.tmp")
            raise

    def _read(self, number: int, kind: str) -> bytes:
        with open(self._file(number, kind), "rb") as file:
            return file.read()

    def _remove(self, number: int, kind: str) -> None:
        try:
            os.unlink(self._file(number, kind))
        except FileNotFoundError:
            pass


_Facts = TypeVar("_Facts", BranchFacts, Intent, GhostFacts)


def _decode(data: bytes, kind: type[_Facts], path: str) -> _Facts:
    try:
        found = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise GuardError(
            f"{path}: not what guardfs wrote: {error}", "move the directory away to keep it, and start again"
        ) from None
    if found.format > FORMAT:
        raise GuardError(
            f"{path}: of format {found.format}, this guardfs knows {FORMAT}",
            "use the guardfs that wrote it, or newer",
        )
    return found
