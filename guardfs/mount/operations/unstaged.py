"""What becomes of an operation on a branch that the journal does not take, or that the guard itself fails at.

It goes through as it would without the guard wherever it means the same there. A branch has offsets of its own, and
bytes that nobody else has: where the file is no place for what was asked, the caller gets an error, and nothing is
done.
"""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

import pyfuse3

from guardfs.closing import let_go
from guardfs.fence.fingerprint import Fingerprint
from guardfs.mount.operations.core import now
from guardfs.mount.operations.enforcing import NOT_DONE
from guardfs.mount.operations.looking import Looking
from guardfs.mount.operations.parts import Context, Handle, Later
from guardfs.mount.views import Live


class Unstaged(Looking):
    """Writes that could not be staged; and the way that each operation on a branch takes without a verdict."""

    placed: tuple[Live, int] | None = None
    """Where the write that is under way goes: an offset of a branch."""

    # ---- the journal takes no more

    def _not_staged(self, handle: Handle, data: bytes, at: int, live: Live, error: OSError) -> int:
        """*data*, which was meant for offset *at* of a branch, goes to the end of the file. What its lane wrote before
        goes there first. OSError: *error*, where that cannot be, or *data* belongs into the middle of the branch."""
        views, staged = self.views, live.staged
        assert views is not None
        if at != live.branch.length:
            raise error
        torn = handle.torn
        before = views.at_once(live)
        if not before and (torn or live.branch.whole or not data.endswith(b"\n")):
            raise error
        try:
            fd = views.open_file(staged)
        except OSError:
            raise error from None
        try:
            begin, seen = now(), staged.node
            shown = self.state(seen)
            views.could_not(staged.staging.transcript, "write", error)
            line = data if before else views.onto(fd, data)
            size = self.below.fstat(fd).st_size
            self.done = done = self._append(fd, line)
            if done < len(line) and line is not data:  # a part of it is not a part of *data*
                self.done = NOT_DONE
                self.below.ftruncate(fd, size)
                raise error
            self._passed(live, fd, line[:done], shown, begin)
            self.done = done = len(data) if done == len(line) else done
            return done
        finally:
            let_go(fd)

    def _append(self, fd: int, data: bytes) -> int:
        """write(2) at the end: all of *data*, or as much as could be; OSError if that is nothing."""
        done = 0
        try:
            while done < len(data):
                done += self.below.pwrite(fd, data[done:] if done else data, 0)
        except OSError:
            if not done:
                raise
        return done

    def _passed(self, live: Live, fd: int, data: bytes, before: Fingerprint | None, begin: int) -> None:
        """The file has *data* at its end now. Never raises."""
        node = live.staged.node
        if node is None:
            return
        try:
            st = self.below.fstat(fd)
            self.left(node, st)
            at = st.st_size - len(data)
            more: dict[str, Any] = {"offset": at, "size": len(data), "append": True, "data": data}
            caller = self.caller()
            self.note("write", begin, caller, node.kind, node.path(), 0, node, before=before, **more)
            self.forget_node(node.id)
        except Exception:
            self.internal_error("write, after it was done")

    def _behind(self, handle: Handle, offset: int, live: Live | None) -> int:
        """Where a write at *offset* belongs, in the branch *live* or in the file, that follows what was on a branch
        before. EIO: it belongs into the middle of that, which has got other offsets."""
        if handle.follows < 0 or offset < handle.own_from:
            return offset
        if offset < handle.follows:
            _broken()
        end = self.below.fstat(handle.fd).st_size if live is None else live.branch.length
        if self.again and self.keeper is not None:  # it may have been written already, to just there
            end = min(end, self.keeper.size_before(end))
        return end + offset - handle.follows

    def _went_on(self, handle: Handle, offset: int, written: int | Later, data: bytes) -> None:
        """The write at *offset* is done."""
        if handle.follows >= 0 and offset >= handle.own_from:
            handle.follows = offset + (written if isinstance(written, int) else len(data))
            self.keep_marks(handle)

    def _tear(self, handle: Handle, written: bytes) -> None:
        """What was *written* through *handle* ends with a record, or in the middle of one."""
        if handle.torn is written.endswith(b"\n"):
            handle.torn = not handle.torn
            self.keep_marks(handle)

    # ---- the guard itself has failed: called by `through`, with the arguments of the operation

    def _branch_of(self, handle: Handle | None) -> Live | None:
        """The branch that *handle* reads and writes. OSError: that is gone, and the file cannot be opened."""
        if handle is not None and handle.live is None and handle.journal and self.views is not None:
            self.views.find_file(handle)
        return None if handle is None else handle.live

    def _instead_of_write(self, number: int, offset: int, data: bytes) -> int | Later:
        """To where the handle writes already, without asking whose it is."""
        handle = self.handles.get(number)
        live = self._branch_of(handle)
        if live is None or handle is None or self.views is None:
            return super().write(number, offset, data)
        if self.placed is not None and self.placed[0] is live:
            at = self.placed[1]  # what was written there already is only written once more
        else:
            at = live.branch.length if handle.append else self._behind(handle, offset, live)
        try:
            written = self.views.write(live, data, at)
        except OSError as error:
            written = self._not_staged(handle, data, at, live, error)
        self._went_on(handle, offset, written, data)
        return written

    def _instead_of_read(self, number: int, offset: int, size: int) -> Any:
        live = self._branch_of(self.handles.get(number))
        return super().read(number, offset, size) if live is None else live.read(size, offset)

    def _instead_of_fsync(self, number: int, datasync: bool) -> Later:
        live = self._branch_of(self.handles.get(number))
        if live is None:
            return super().fsync(number, datasync)
        return Later(live.file.syncing(), lambda _: None)

    def _instead_of_open(self, node_id: int, flags: int, ctx: Context) -> Any:
        """A branch's node leads to the branch; there is no other way to open it."""
        node = self.nodes.get(node_id)
        view = None if node is None else node.view
        if node is None or not isinstance(view, Live) or self.views is None:
            return super().open(node_id, flags, ctx)
        if flags & os.O_TRUNC:
            _broken()
        return self._branch_handle(view, node, flags)

    def _instead_of_setattr(
        self, node_id: int, attr: Any, fields: Any, number: int | None, ctx: Context
    ) -> pyfuse3.EntryAttributes:
        """The file cannot be cut for a branch."""
        node = self.nodes.get(node_id)
        handle = None if number is None else self.handles.get(number)
        of_branch = self._branch_of(handle) is not None or (node is not None and isinstance(node.view, Live))
        if fields.update_size and of_branch:
            _broken()
        return super().setattr(node_id, attr, fields, number, ctx)

    def _branch_handle(self, live: Live, node: Any, flags: int) -> pyfuse3.FileInfo:
        """An open file on a branch."""
        assert self.views is not None
        fd = self.views.attach(live, flags)
        try:
            info = self.handle(fd, node, flags)
        except BaseException:
            let_go(fd)
            raise
        handle = self.handles[info.fh]
        handle.live, handle.journal = live, True
        live.handles.append(handle)
        self.views.touched.add(live.staged.staging.transcript)
        return info

    def _unopened(self, number: int) -> None:
        """An open that came to nothing."""
        handle = self.handles.pop(number)
        if self.keeper is not None:
            self.keeper.nodes.closed(handle)
        handle.node.opened.remove(handle.fd)
        if handle.live is not None:
            handle.live.handles.remove(handle)
        let_go(handle.fd)


def _broken() -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
