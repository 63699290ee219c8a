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
import logging
import os
import re
import time
from collections.abc import Callable, Iterable

import msgspec

from guardfs.closing import let_go
from guardfs.errors import GuardError
from guardfs.state.journaled import FORMAT, BranchFacts, GhostFacts, Intent, decode

log = logging.getLogger("guardfs.state")

__all__ = ["FORMAT", "BranchFacts", "BranchFile", "BranchStore", "GhostFacts", "Intent", "read_all"]

DIRECTORY = "branches"
MAX_BRANCH = 64 << 20
MAX_TOTAL = 1 << 30
"""Bytes of one branch, and of all; the policy may say otherwise."""

_NAME = re.compile(r"(\d+)\.(json|data|merge|out|ghost)(\.tmp)?")


class BranchFile:
    """One branch on the disk. fd: its data, open to read and write. size, inode: of that. synced: some of it was
    brought to the disk, or may have been, and must not leave it before it is there in another file."""

    __slots__ = ("_store", "_written", "facts", "fd", "inode", "size", "synced")

    def __init__(self, store: BranchStore, facts: BranchFacts, fd: int, size: int, inode: int) -> None:
        self._store = store
        self._written = time.time_ns()
        self.facts = facts
        self.fd = fd
        self.size = size
        self.inode = inode
        self.synced = False

    @property
    def number(self) -> int:
        return self.facts.number

    def write(self, data: bytes, offset: int) -> int:
        """pwrite(2); OSError(ENOSPC) also where the journal's bound would be passed. All of *data* or nothing, but
        where other bytes are overwritten: then as many are written as could be, and their number says so."""
        store = self._store
        grown = max(0, offset + len(data) - self.size)
        self._bound(grown)
        store.step("branch.write")
        done = 0
        try:
            while done < len(data):
                done += store.pwrite(self.fd, data[done:] if done else data, offset + done)
        except OSError:
            if not done or offset >= self.size:
                self._cut(self.size)
                raise
            grown = max(0, offset + done - self.size)
        store.step("branch.written")
        self.size += grown
        store.total += grown
        return done

    def _bound(self, grown: int) -> None:
        store = self._store
        if grown and (self.size + grown > store.max_branch or store.total + grown > store.max_total):
            raise OSError(errno.ENOSPC, "the journal's bound is reached (fence.max_branch, fence.max_staged)")

    def undo(self, size: int) -> None:
        """Take back what was written behind *size*: whoever did so was not answered, and comes again."""
        if self.size > size:
            os.ftruncate(self.fd, size)
            self._store.total += size - self.size
            self.size = size

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self.fd, size)
        except OSError:
            pass  # what is behind *size* is never read: the next write goes over it, and a truncate cuts it

    def truncate(self, size: int) -> None:
        """ftruncate(2); bounded like `write`."""
        self._bound(max(0, size - self.size))
        self._store.step("branch.truncate")
        os.ftruncate(self.fd, size)
        self._store.total += size - self.size
        self.size = size

    def read(self, size: int, offset: int) -> bytes:
        """The branch's own bytes: all that are asked for, as far as there are so many."""
        return read_all(os.pread, self.fd, max(0, min(size, self.size - offset)), offset)

    def syncing(self) -> Callable[[], None]:
        """fsync(2), to be done by any thread. From now on what it holds must not leave the disk; it may be rebased
        before that thread has come to it."""
        self.synced = True
        fd, number = os.dup(self.fd), self.number

        def sync() -> None:
            try:
                os.fsync(fd)
            finally:
                let_go(fd)
            self._store.sync(number)

        return sync

    def sync(self) -> None:
        """fsync(2), at once."""
        self.syncing()()

    @property
    def written(self) -> int:
        """When something was written last, ns since the epoch. Never an error: it is asked when the deed is done."""
        try:
            self._written = os.fstat(self.fd).st_mtime_ns
        except OSError as error:
            log.warning("branch %d: when it was written last is not known: %s", self.number, error.strerror)
        return self._written


class BranchStore:
    """All branches of one guarded directory. Errors of the disk are OSError. Not thread-safe, but for `sync`.

    step: called with the name of each step, so that tests can end the process there. pwrite: likewise, to fail there.
    about: called with a branch's number and its size before its lane writes to it.
    """

    def __init__(self, state: str, max_branch: int = MAX_BRANCH, max_total: int = MAX_TOTAL) -> None:
        self.path = os.path.join(state, DIRECTORY)
        self.max_branch = max_branch
        self.max_total = max_total
        self.total = 0
        self.step: Callable[[str], None] = lambda name: None
        self.about: Callable[[int, int], None] = lambda number, size: None
        self.pwrite: Callable[[int, bytes, int], int] = os.pwrite
        self._next = 1
        self.files: dict[int, BranchFile] = {}
        self._vain: list[BranchFile] = []
        self.carried: set[int] = set()
        """Ghosts of which a branch has what was written there."""

    # ---- branches

    def create(
        self,
        make: Callable[[int], BranchFacts],
        content: Iterable[bytes] = (),
        follows: int = 0,
        written: int = 0,
        *,
        synced: bool = False,
        keep: bool = False,
    ) -> BranchFile:
        """A new branch that holds *content*; *make* is given its number. Whole, or not at all.

        It takes the place of the branch *follows*; of a ghost it takes what was written there, which `rest` must be
        called for. written: when *content* was, ns since the epoch, if not now. synced: *content* was brought to the
        disk where it was before. keep: *follows* is not dropped yet, so that the caller can go back to it.
        """
        self._directory()
        number, self._next = self._next, self._next + 1  # one that failed may have left something
        facts = make(number)
        if follows:
            facts = msgspec.structs.replace(facts, follows=follows)
        fd = os.open(self._file(number, "data"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        file = BranchFile(self, facts, fd, 0, 0)
        try:
            file.inode = os.fstat(fd).st_ino
            self.step("branch.data-made")
            for chunk in content:
                file.write(chunk, file.size)
            if written:
                os.utime(fd, ns=(written, written))
            self._put(number, "json", msgspec.json.encode(facts))
            if synced or (follows in self.files and self.files[follows].synced):
                file.sync()
        except BaseException:
            let_go(fd)
            self.total -= file.size
            for kind in ("json", "data"):
                self._clear(number, kind)
            raise
        self.files[number] = file
        self.step("branch.made")
        if follows in self.files and not keep:
            self.replaced(file)
        return file

    def replaced(self, file: BranchFile) -> None:
        """The branch that *file* follows is not needed any more. If it cannot be dropped now, it goes with *file*."""
        old = self.files.get(file.facts.follows)
        if old is None:
            return
        try:
            self.drop(old)
        except OSError as error:
            log.warning("branch %d, which was replaced, cannot be removed: %s", old.number, error.strerror)

    def undo(self, file: BranchFile) -> None:
        """*file* was made in vain: the branch that it follows goes on, and is not dropped before this is gone."""
        del self.files[file.number]
        self.total -= file.size
        let_go(file.fd)
        file.fd = -1
        try:
            self._remove(file.number, "json")
        except OSError as error:
            log.warning(
                "branch %d, which was made in vain, cannot be removed yet: %s", file.number, error.strerror
            )
            self._vain.append(file)
        else:
            self._clear(file.number, "data")

    def describe(self, file: BranchFile, facts: BranchFacts) -> None:
        """*facts* hold of *file* from now on."""
        self._put(file.number, "json", msgspec.json.encode(facts))
        file.facts = facts

    def drop(self, file: BranchFile) -> None:
        """The branch is no more: rebased, or given up. The first step of it decides; an error of another one does not
        matter, since the next guard removes what is left."""
        number = file.number
        older = self.files.get(file.facts.follows)
        if older is not None:
            self.drop(older)  # else the next guard would find it, and nobody who took its place
        for other in [each for each in self._vain if each.facts.follows == number]:
            self._remove(other.number, "json")
            self._vain.remove(other)
            self._clear(other.number, "data")
        self._remove(number, "json")
        self.step("branch.dropped")
        for kind in ("merge", "out", "data"):
            self._clear(number, kind)
        if self.files.pop(number, None) is not None:
            self.total -= file.size
            let_go(file.fd)
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
            intent = decode(self._read(file.number, "merge"), Intent, self._file(file.number, "merge"))
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
        files of a newer guardfs, and where not all can be read: one may have taken another's place. What was never
        finished is removed."""
        try:
            return self._load_all()
        except OSError as error:
            self.close()
            raise GuardError(
                f"{self.path}: cannot be read: {error.strerror}",
                "mend the disk and try again; what is staged there is kept",
            ) from None

    def _load_all(self) -> dict[int, GhostFacts]:
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
                self._clear(int(match[1]), f"{match[2]}.tmp")
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
                ghosts[number] = decode(self._read(number, "ghost"), GhostFacts, self._file(number, "ghost"))
            elif "json" not in kinds or number in followed:
                self._remove(number, "json")  # it must not come back when the one that took its place is gone
                for kind in ("merge", "out", "data"):
                    self._clear(number, kind)
            else:
                followed.add(self._load_one(number).facts.follows)
        self.files = dict(sorted(self.files.items()))
        self.carried = followed & ghosts.keys()
        return ghosts

    def _load_one(self, number: int) -> BranchFile:
        facts = decode(self._read(number, "json"), BranchFacts, self._file(number, "json"))
        fd = os.open(self._file(number, "data"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            st = os.fstat(fd)
        except BaseException:
            let_go(fd)
            raise
        file = self.files[number] = BranchFile(self, facts, fd, st.st_size, st.st_ino)
        file.synced = True  # for all that is known
        self.total += file.size
        return file

    def close(self) -> None:
        """Close what is open; the files stay."""
        for file in self.files.values():
            let_go(file.fd)
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
                let_go(fd)

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
            self._clear(number, f"{kind}.tmp")
            raise

    def _read(self, number: int, kind: str) -> bytes:
        with open(self._file(number, kind), "rb") as file:
            return file.read()

    def _remove(self, number: int, kind: str) -> None:
        try:
            os.unlink(self._file(number, kind))
        except FileNotFoundError:
            pass

    def _clear(self, number: int, kind: str) -> None:
        """The same of what means nothing any more: if it stays, the next guard removes it."""
        try:
            self._remove(number, kind)
        except OSError as error:
            log.warning("%s: cannot be removed: %s", self._file(number, kind), error.strerror)


def read_all(pread: Callable[[int, int, int], bytes], fd: int, size: int, offset: int) -> bytes:
    """pread(2) as often as it takes: *size* bytes, or fewer where the file ends."""
    data = pread(fd, size, offset)
    if len(data) == size:
        return data
    parts = [data]
    while data and size > (done := sum(map(len, parts))):
        data = pread(fd, size - done, offset + done)
        parts.append(data)
    return b"".join(parts)
