"""The branches behind views: made on the file as it is, written, cut, replaced."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from guardfs.closing import let_go
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.staging import Branch, Key
from guardfs.mount.views.live import Live, Staged, fingerprint
from guardfs.mount.views.looking import Looking
from guardfs.state.branches import BranchFacts, BranchFile, read_all

log = logging.getLogger("guardfs.views")


_BEFORE = 64
"""Bytes by which a file is known again that was cut and has grown since."""


_CHANGES = ("base", "made", "number", "shown", "size", "whole", "written")
"""What a replacement changes of a `guardfs.fence.staging.Branch`."""


class Replaced(NamedTuple):
    """A branch as it was before another file took its name."""

    file: BranchFile
    branch: dict[str, Any]


class Branching(Looking):
    """Branches; each is in the journal before the call of its writer returns."""

    def branch(
        self,
        staged: Staged,
        target: Branch | Key,
        lane: str,
        *,
        base: Fingerprint | None = None,
        mode: int = 0o600,
        owner: tuple[int, int] = (0, 0),
    ) -> Live:
        """The branch *target*, made if need be, on the committed file as it is, or on *base*. mode, owner (user,
        group): of the file to be made, if there is none. FileNotFoundError where the file of *base* is gone; another
        OSError where the journal cannot be written."""
        if isinstance(target, Branch):
            return staged.lives[target.number]
        core = self._core
        base_fd, before = -1, b""
        made = True  # but where a process relies on there being no file
        if base is not None:
            made = base.exists
        if base is None or base.exists:
            base_fd, st = self._open_base(staged, self._relies_on_ghost(staged, target, base))
            if base is None:
                base = ABSENT if st is None else fingerprint(st)
            try:
                if base.exists and (st is None or st.st_ino != base.ino):
                    raise FileNotFoundError(errno.ENOENT, "the file that it stands on is gone")
                if base_fd >= 0:
                    before = read_all(core.below.pread, base_fd, _BEFORE, max(0, base.size - _BEFORE))
            except BaseException:
                if base_fd >= 0:
                    let_go(base_fd)
                raise
        wall = core.clock()
        self._order += 1
        try:
            file = self._store.create(
                lambda number: BranchFacts(
                    number=number,
                    transcript=staged.staging.transcript,
                    lane=lane or "unknown",
                    key=target.kind,
                    process=target.process,
                    base=max(0, base.size),
                    exists=base.exists,
                    whole=not base.exists,
                    made=made,
                    inode=base.ino,
                    device=base.dev,
                    mode=mode,
                    uid=owner[0],
                    gid=owner[1],
                    opened=wall,
                    before=before[: base.size],
                )
            )
        except BaseException:
            if base_fd >= 0:
                let_go(base_fd)
            raise
        branch = Branch(file.number, target, lane, base, order=self._order, wall=wall, inode=file.inode)
        branch.made = made
        live = Live(staged, branch, file, base_fd)
        staged.lives[branch.number] = live
        staged.staging.branches.append(branch)
        self._tell(staged, branch, "begun", base=base.size if base.exists else None)
        return live

    def _relies_on_ghost(self, staged: Staged, target: Key, base: Fingerprint | None) -> bool:
        """Whether the branch *target*, on *base* if that is known, stands on the file that has lost its name, and not
        on the one that has the name now."""
        if staged.ghost is None or target.kind == "lane":
            return False
        if base is not None:
            return base.ino == staged.ghost[1].inode
        return staged.staging.own(target.process) is None

    def _open_base(self, staged: Staged, ghost: bool) -> tuple[int, os.stat_result | None]:
        """The file that a new branch stands on; -1 and None if there is none. ghost: the one that has lost its name."""
        core = self._core
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if ghost:
            fd = core.below.open(b"/proc/self/fd/%d" % staged.ghost_fd, flags & ~os.O_NOFOLLOW)
        else:
            try:
                fd = core.below.open(staged.name, flags, dir_fd=core.fds.of(staged.parent))
            except FileNotFoundError:
                return -1, None
        try:
            return fd, core.below.fstat(fd)
        except BaseException:
            let_go(fd)
            raise

    def write(self, live: Live, data: bytes, at: int) -> int:
        """Put *data* at offset *at* of the view; how many bytes of it. OSError if it cannot be kept."""
        branch, live.busy = live.branch, time.monotonic_ns()
        if at < branch.base:
            self._make_whole(live, branch.length)
        self._store.about(live.file.number, live.file.size)
        written = live.file.write(data, at - branch.base)
        branch.wrote(live.file.size, live.file.written)
        return written

    def truncate(self, live: Live, size: int) -> None:
        """ftruncate(2) of the view."""
        branch, live.busy = live.branch, time.monotonic_ns()
        if size < branch.base or (size == 0 and not branch.whole):
            self._make_whole(live, size)
            return
        live.file.truncate(size - branch.base)
        branch.wrote(live.file.size, live.file.written)

    def _make_whole(self, live: Live, upto: int) -> None:
        """From now on the branch holds the whole file, as its lane sees the first *upto* bytes of it."""

        def content() -> Iterable[bytes]:
            at = 0
            while at < upto:
                part = live.read(min(1 << 20, upto - at), at)
                if not part:
                    return
                yield part
                at += len(part)

        self._rewrite(live, content(), {"whole": True})
        live.branch.replaced(live.file.size, live.file.written)

    def replace(self, live: Live, source: int, st: os.stat_result) -> Replaced:
        """The file *source*, an open descriptor, is to take the transcript's name, as far as this lane sees. Either
        `keep_replaced` or `unreplace` must be called with what is returned."""

        def content() -> Iterable[bytes]:
            at = 0
            while part := os.pread(source, 1 << 20, at):
                yield part
                at += len(part)

        own = {"mode": st.st_mode & 0o7777, "uid": st.st_uid, "gid": st.st_gid}
        before = Replaced(live.file, {name: getattr(live.branch, name) for name in _CHANGES})
        self._rewrite(live, content(), {"whole": True, "replaces": True, **own}, keep=True)
        live.branch.replaced(live.file.size, live.file.written, st.st_ino)
        try:
            self.touch(live, st.st_mtime_ns)
        except OSError as error:
            log.warning("the modification time of a transcript cannot be kept: %s", error.strerror)
        return before

    def keep_replaced(self, live: Live) -> None:
        """The file has taken the name: what was before is not needed any more."""
        self._store.replaced(live.file)

    def unreplace(self, live: Live, before: Replaced) -> None:
        """It has not: all is as it was before."""
        new, number = live.file, live.branch.number
        live.file = before.file
        for name, value in before.branch.items():
            setattr(live.branch, name, value)
        del live.staged.lives[number]
        live.staged.lives[live.branch.number] = live
        self._lead_to(live)
        self._store.undo(new)

    def touch(self, live: Live, mtime_ns: int | None) -> None:
        """The attributes of a branch were changed; mtime_ns: to this modification time, if at all."""
        if mtime_ns is not None:
            os.utime(live.file.fd, ns=(mtime_ns, mtime_ns))
        live.branch.touched(mtime_ns, self._core.clock())

    def _rewrite(
        self, live: Live, content: Iterable[bytes], change: dict[str, Any], *, keep: bool = False
    ) -> None:
        old, number = live.file, live.branch.number

        def facts(new: int) -> BranchFacts:
            return msgspec.structs.replace(old.facts, number=new, **change)

        live.file = self._store.create(facts, content, follows=old.number, keep=keep)
        del live.staged.lives[number]
        live.branch.number = live.file.number
        live.staged.lives[live.file.number] = live
        self._lead_to(live)

    def _lead_to(self, live: Live) -> None:
        """The descriptors of handles lead to the branch's data, as `fsync` and `fstat` want it."""
        for handle in live.handles:
            if handle.journal:
                try:
                    os.dup2(live.file.fd, handle.fd, inheritable=False)
                except OSError as error:  # reads and writes do not go by it
                    log.warning("branch %d: %s", live.branch.number, error)

    def make(self, live: Live, mode: int, owner: tuple[int, int]) -> None:
        """Its lane creates the file; until now it saw none."""
        uid, gid = owner
        self.describe(live, msgspec.structs.replace(live.file.facts, made=True, mode=mode, uid=uid, gid=gid))
        live.branch.made = True

    def describe(self, live: Live, facts: BranchFacts) -> None:
        """Other attributes of a file that is only to be made."""
        self._store.describe(live.file, facts)

    def attach(self, live: Live, flags: int) -> int:
        """A descriptor for a handle on the branch's node; it becomes one of the file when the branch is rebased."""
        return os.dup(live.file.fd)
