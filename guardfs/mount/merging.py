"""Rebases a branch onto its transcript: on the running mount, at the start after a crash, and for `guardfs recover`.

The steps of one rebase, each of which may be the last one before the process ends:

    1. the bytes to be added, and what the file is now, are put into the journal (`Intent`)
    2. the bytes are appended; or a new file, beside the transcript, takes its name
    3. the modification time becomes that of the last original write
    4. the branch is dropped from the journal

Whoever comes after a crash finds an intent, compares it with the file, and does what is left, or starts anew.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from typing import Literal, NamedTuple

from guardfs.closing import let_go
from guardfs.mount import libc
from guardfs.mount.backing import Backing
from guardfs.state.branches import BranchFile, BranchStore, Intent, read_all
from guardfs.transcript.chain import History
from guardfs.transcript.formats import Format, Place
from guardfs.transcript.positions import Position, positions
from guardfs.transcript.rebase import Rebased, merge, rebase
from guardfs.transcript.tail import tail

log = logging.getLogger("guardfs.views")

_CHUNK = 1 << 20
_FIRST = 64 << 10
"""Bytes in which the header is looked for."""

MAX_WHOLE = 256 << 20
"""Bytes of a file that can be put together anew in memory."""

Result = Literal["appended", "replaced", "made", "empty", "conflict", "done"]
"""appended, replaced: the transcript; made: there was none; empty: the branch held nothing; conflict: it is a file of
its own now; done: an earlier attempt had done it all."""


class Merged(NamedTuple):
    """What became of a branch. name: the file that holds it now, below its directory. moved, dropped, unparsed: as in
    `Rebased`. records: whole ones that were added. size: of the file, bytes."""

    result: Result
    name: bytes
    records: int = 0
    moved: int = 0
    dropped: int = 0
    unparsed: int = 0
    added: int = 0
    size: int = 0


class Merger:
    """Works in the directory *dir_fd* of the transcript; names are those there. Errors of the disk are OSError, and
    leave the branch in the journal, and the transcript as it was."""

    def __init__(self, store: BranchStore, below: Backing, format: Format) -> None:
        self._store = store
        self._below = below
        self.format = format

    # ---- one branch

    def merge(self, file: BranchFile, dir_fd: int, name: bytes, stamp: str) -> Merged:
        """Rebase *file* onto *name*. stamp: for the name of a conflict."""
        begun = self._store.begun(file)
        rest: bytes | None = None
        if begun is not None:
            finished = self._finish(file, dir_fd, name, *begun)
            if isinstance(finished, Merged):
                return finished
            rest = finished
            self._store.forget(file)
        facts = file.facts
        target = self._open(dir_fd, name)
        try:
            if file.size == 0 and not facts.replaces and not (facts.whole and facts.made):
                self._store.drop(file)
                return Merged("empty", name)
            if rest is not None and target is not None:
                return self._append(file, name, target, rest)
            if target is None:
                if facts.exists:
                    return self._conflict(file, dir_fd, name, stamp)
                return self._make(file, dir_fd, name)
            if facts.exists and (facts.whole or facts.replaces):
                return self._replace(file, dir_fd, name, target, stamp)
            if self._continued(file, target):
                return self._insert(file, dir_fd, name, target)
            return self._append(file, name, target)
        finally:
            if target is not None:
                let_go(target)

    def _open(self, dir_fd: int, name: bytes) -> int | None:
        """The transcript, to read and write; None if there is none."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = self._below.open(name, flags, dir_fd=dir_fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                return None  # another kind of file has taken the name
            raise
        try:
            regular = stat.S_ISREG(self._below.fstat(fd).st_mode)
        except BaseException:
            let_go(fd)
            raise
        if not regular:
            let_go(fd)
            return None
        return fd

    def _continued(self, file: BranchFile, target: int) -> bool:
        """Whether records that were committed since its base go on from the branch's: its own process has written them,
        to the file."""
        size, base = self._below.fstat(target).st_size, file.facts.base
        if not (self.format.parents and file.facts.exists and base < size) or file.facts.key == "ghost":
            return False
        if size > MAX_WHOLE or file.size > MAX_WHOLE:
            return False
        own = {position.record.id for position in positions([file.read(file.size, 0)], self.format)} - {None}
        since = positions([self._read(target, size - base, base)], self.format)
        return any(position.record.parent in own for position in since)

    def _insert(self, file: BranchFile, dir_fd: int, name: bytes, target: int) -> Merged:
        """The branch goes before what goes on from it; behind, it would be its own descendant's child, or the end of a
        history that is forgotten."""
        st, facts, data = self._below.fstat(target), file.facts, file.read(file.size, 0)
        before = self._read(target, facts.base, 0)
        if (st.st_ino, st.st_dev) != (facts.inode, facts.device) or not before.endswith(facts.before):
            found = rebase(
                data, self.format, leaf=None, header=True, newline=self.end_of(target, st.st_size)[2]
            )
            return self._add(file, name, target, found, max(st.st_mtime_ns, file.written))
        leaf, header, newline = self.end_of(target, facts.base)
        put = rebase(data, self.format, leaf=leaf, header=header, newline=newline)
        since = merge(before + put.data, self._read(target, st.st_size - facts.base, facts.base), self.format)
        return self._take(file, dir_fd, name, st, before, put.data + since.data, "replaced", put)

    def _append(self, file: BranchFile, name: bytes, target: int, rest: bytes | None = None) -> Merged:
        """rest: what is left of the branch, if not all of it."""
        st, facts = self._below.fstat(target), file.facts
        # whoever made the file anew may have copied what its owner wrote to the one before, or to a branch
        other = facts.inode != 0 and (st.st_ino, st.st_dev) != (facts.inode, facts.device)
        anew = facts.key == "ghost" or (facts.whole and not facts.exists) or other
        known = self._ids(target) if anew else frozenset()
        data = file.read(file.size, 0) if rest is None else rest
        found = self.onto(target, st.st_size, data, known)
        mtime = max(st.st_mtime_ns, file.written)
        return self._add(file, name, target, found, mtime)

    def _add(self, file: BranchFile, name: bytes, target: int, found: Rebased, mtime: int) -> Merged:
        st = self._below.fstat(target)
        intent = Intent(
            size=st.st_size, inode=st.st_ino, device=st.st_dev, added=len(found.data), mtime=mtime
        )
        self._store.begin(file, intent, found.data)
        try:
            self.append(target, found.data, st.st_size, mtime)
        except OSError:
            self._undo(target, found.data, st)
            raise
        self._keep(file, target)
        self._store.drop(file)
        return _merged("appended", name, found, st.st_size + len(found.data))

    def append(self, target: int, data: bytes, at: int, mtime: int) -> None:
        """Put *data* at the end, *at*, and give the file its modification time back."""
        done = 0
        while done < len(data):
            end = data.rfind(b"\n", done, done + _CHUNK) + 1 or done + _CHUNK  # whole records, if that can be
            done += self._below.pwrite(target, data[done:end], at + done)
            self._store.step("merge.appending")
        self._store.step("merge.appended")
        self._set_time(target, mtime)
        self._store.step("merge.timed")

    def _set_time(self, target: int, mtime: int) -> None:
        try:
            self._below.utimens(
                b"/proc/self/fd/%d" % target, (0, libc.UTIME_OMIT), divmod(mtime, 1_000_000_000)
            )
        except OSError as error:  # the records are there, which is what counts
            log.warning("the modification time of a transcript cannot be kept: %s", error.strerror)

    def _undo(self, target: int, data: bytes, before: os.stat_result) -> None:
        """A part of *data* at most was appended: take it back, unless somebody has gone on behind it."""
        try:
            size = self._below.fstat(target).st_size
            there = self._read(target, len(data), before.st_size)
            if size == before.st_size + len(there) and data.startswith(there):
                self._below.ftruncate(target, before.st_size)
                self._set_time(target, before.st_mtime_ns)
        except OSError:
            pass  # the intent is there: it is finished at the next attempt

    def _keep(self, file: BranchFile, target: int) -> None:
        """What was synced in the journal is to be so in the file, before the journal forgets it."""
        if file.synced:
            self._below.fsync(target)

    def onto(self, target: int, size: int, data: bytes, known: frozenset[str] = frozenset()) -> Rebased:
        """*data* as it is to be appended to the open file *target* of *size* bytes. known: ids that are left out."""
        leaf, header, newline = self.end_of(target, size)
        if size and not header and self._begins(data):  # another's may be further down
            header = any(map(self._is_header, positions(self._chunks(target), self.format)))
        return rebase(data, self.format, leaf=leaf, header=header, newline=newline, known=known)

    def _ids(self, fd: int) -> frozenset[str]:
        found = (position.record.id for position in positions(self._chunks(fd), self.format))
        return frozenset(name for name in found if name is not None)

    def end_of(self, fd: int, size: int) -> tuple[str | None, bool, bool]:
        """Of an open transcript: its leaf, whether it has a header, whether it ends in a newline."""
        found = tail(lambda offset, length: self._read(fd, length, offset), size, self.format)
        leaf = found.leaf if found.known else self._leaf_of_all(fd)
        return leaf, self._begins(self._read(fd, _FIRST, 0)), found.newline

    def _begins(self, data: bytes) -> bool:
        """Whether *data* begins with a header."""
        first = next(iter(positions([data[:_FIRST]], self.format)), None)
        return first is not None and self._is_header(first)

    def _is_header(self, position: Position) -> bool:
        return self.format.place(position.record) is Place.HEADER

    def _leaf_of_all(self, fd: int) -> str | None:
        history = History(self.format)
        for position in positions(self._chunks(fd), self.format):
            history.add(position.record)
        return history.leaf

    def _read(self, fd: int, size: int, offset: int) -> bytes:
        return read_all(self._below.pread, fd, size, offset)

    def _chunks(self, fd: int) -> Iterator[bytes]:
        at = 0
        while data := self._below.pread(fd, _CHUNK, at):
            yield data
            at += len(data)

    # ---- a branch that is a file of its own

    def _make(self, file: BranchFile, dir_fd: int, name: bytes) -> Merged:
        """There is no transcript: the branch becomes it."""
        found = rebase(file.read(file.size, 0), self.format, leaf=None, header=False, newline=True)
        return self._take(file, dir_fd, name, None, found.data, b"", "made", found)

    def _replace(self, file: BranchFile, dir_fd: int, name: bytes, target: int, stamp: str) -> Merged:
        """The branch is to stand in the transcript's place, and behind it what was committed since its base."""
        st, facts = self._below.fstat(target), file.facts
        if (st.st_ino, st.st_dev) != (facts.inode, facts.device) or st.st_size < facts.base:
            return self._conflict(file, dir_fd, name, stamp)
        if st.st_size - facts.base > MAX_WHOLE or file.size > MAX_WHOLE:
            return self._conflict(file, dir_fd, name, stamp)
        before = facts.before
        if (
            self._read(target, len(before), facts.base - len(before)) != before
        ):  # it was cut, and has grown since
            return self._conflict(file, dir_fd, name, stamp)
        data = file.read(file.size, 0)
        since = self._read(target, st.st_size - facts.base, facts.base)
        found = merge(data, since, self.format)
        return self._take(file, dir_fd, name, st, data, found.data, "replaced", found)

    def _take(
        self,
        file: BranchFile,
        dir_fd: int,
        name: bytes,
        before: os.stat_result | None,
        data: bytes,
        added: bytes,
        result: Result,
        found: Rebased,
    ) -> Merged:
        facts, below = file.facts, self._below
        mtime = max(file.written, before.st_mtime_ns if before is not None and added else 0)
        temporary = b".guardfs-%d-%d.tmp" % (facts.opened % 1_000_000_000, file.number)
        intent = Intent(
            size=len(data) + len(added),
            inode=before.st_ino if before is not None else 0,
            device=before.st_dev if before is not None else 0,
            added=len(added),
            replaces=True,
            mtime=mtime,
            temporary=temporary,
            name=name,
        )
        self._store.begin(file, intent, added)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        own = before is None or facts.replaces
        mode = facts.mode if own else stat.S_IMODE(before.st_mode)  # type: ignore[union-attr]
        uid, gid = (facts.uid, facts.gid) if own else (before.st_uid, before.st_gid)  # type: ignore[union-attr]
        self._discard(dir_fd, temporary)
        fd = below.open(temporary, flags, 0o600, dir_fd=dir_fd)
        try:
            if os.geteuid() == 0:
                below.fchown(fd, uid, gid)
            below.fchmod(fd, mode)
            self.append(fd, data + added, 0, mtime)
            self._keep(file, fd)
            fd, closing = -1, fd
            below.close(closing)  # some file systems tell here that they have no room
            self._store.step("merge.replacing")
            below.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            if fd >= 0:
                let_go(fd)
            self._put_away(dir_fd, temporary)
            raise
        self._store.step("merge.replaced")
        if file.synced:
            self._sync_directory(dir_fd)
        self._store.drop(file)
        return _merged(result, name, found, len(data) + len(added))

    def _conflict(self, file: BranchFile, dir_fd: int, name: bytes, stamp: str) -> Merged:
        """What cannot be merged becomes a file of its own, beside the transcript."""
        lane = file.facts.lane.replace(":", "-").replace("/", "-").encode("utf-8", "surrogateescape")[:80]
        other = b"%b.conflict.%b.%b" % (name, lane, stamp.encode())
        found = Rebased(b"", None, 0, 0, 0, 0, True)
        return self._take(file, dir_fd, other, None, file.read(file.size, 0), b"", "conflict", found)

    def _sync_directory(self, dir_fd: int) -> None:
        fd = self._below.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            self._below.fsync(fd)
        finally:
            let_go(fd)

    def _put_away(self, dir_fd: int, name: bytes) -> None:
        """`_discard`, where something has failed already; the next attempt does it again."""
        try:
            self._discard(dir_fd, name)
        except OSError as error:
            log.warning("%s: cannot be removed: %s", os.fsdecode(name), error.strerror)

    def _discard(self, dir_fd: int, name: bytes) -> None:
        try:
            self._below.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            pass

    # ---- after a crash

    def _finish(
        self, file: BranchFile, dir_fd: int, name: bytes, intent: Intent, added: bytes
    ) -> Merged | bytes | None:
        """Do what is left of a rebase that was begun; None where it did nothing yet, or cannot be told. Where somebody
        else has gone on behind a part of it: the rest, which must be rebased once more."""
        if intent.replaces:
            return self._finish_replacing(file, dir_fd, name, intent, added)
        target = self._open(dir_fd, name)
        if target is None:
            return None
        try:
            st = self._below.fstat(target)
            if (st.st_ino, st.st_dev) != (intent.inode, intent.device) or st.st_size < intent.size:
                return None
            there = self._read(target, len(added), intent.size)
            if not there and added:
                return None  # not begun: what is the leaf may be another one by now
            if not added.startswith(there):
                return added[done:] if (done := _common(added, there)) else None
            end = intent.size + len(added)
            if st.st_size <= end:  # else somebody has gone on behind it, and made the time his own
                try:
                    self.append(target, added[len(there) :], intent.size + len(there), intent.mtime)
                except OSError:
                    self._undo(target, added, os.stat_result((*st[:6], intent.size, *st[7:])))
                    raise
            self._keep(file, target)
            self._store.drop(file)
            return Merged("done", name, size=end)
        finally:
            let_go(target)

    def _finish_replacing(
        self, file: BranchFile, dir_fd: int, name: bytes, intent: Intent, added: bytes
    ) -> Merged | None:
        self._discard(dir_fd, intent.temporary)
        made = intent.name or name
        target = self._open(dir_fd, made)
        if target is None:
            return None
        try:
            st = self._below.fstat(target)
            if (st.st_ino, st.st_dev) == (intent.inode, intent.device) or st.st_size < intent.size:
                return None
            wanted, at = file.read(file.size, 0) + added, 0
            if file.facts.exists and not (file.facts.whole or file.facts.replaces) and made == name:
                wanted, at = added, file.facts.base  # it was put between what was there
            elif made == name and not intent.inode:  # made from nothing: headers may have been dropped
                wanted = rebase(wanted, self.format, leaf=None, header=False, newline=True).data
            if self._read(target, intent.size - at, at) != wanted:
                return None
            if file.synced:
                self._keep(file, target)
                self._sync_directory(dir_fd)
            self._store.drop(file)
            return Merged("done", made, size=st.st_size)
        finally:
            let_go(target)


def _common(one: bytes, other: bytes) -> int:
    """Bytes of the whole lines that both begin with."""
    at = 0
    while (end := one.find(b"\n", at) + 1) and other.startswith(one[at:end], at):
        at = end
    return at


def _merged(result: Result, name: bytes, found: Rebased, size: int) -> Merged:
    return Merged(
        result, name, found.records, found.moved, found.dropped, found.unparsed, len(found.data), size
    )
