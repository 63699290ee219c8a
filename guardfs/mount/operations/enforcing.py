"""What all operations share while a policy is enforced: the verdict first, and then the place.

Each operation in the modules that build on this one stands before the one that it is named like, and hands on to it
whatever needs no branch. Rules about lanes and fences are not made here: `guardfs.policy.judge` gives the verdict,
`guardfs.fence.staging` the place.

A kernel that holds the node of another view than the caller's is answered ESTALE: it then looks the name up once more,
and is given the right one (path_openat and retry_estale in Linux).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import pyfuse3

from guardfs.audit.event import Kind
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.staging import Branch, Key, View
from guardfs.lanes.writer import Writer
from guardfs.mount.nodes import Node
from guardfs.mount.operations.listing import Listings
from guardfs.mount.operations.parts import ASIDE, UNMARKED, UNSEEN, Context, Mark
from guardfs.mount.views import Live, Staged, Views, fingerprint
from guardfs.policy.judge import Ruling

_Method = TypeVar("_Method", bound=Callable[..., Any])

NOT_DONE = object()


def through(method: _Method) -> _Method:
    """The operation *method* goes through as it would without the guard, if the guard itself fails at it, and never
    twice: what was done already is not done again, and its answer stands."""
    name = method.__name__

    def operation(self: Enforcing, *args: Any) -> Any:
        if self.views is None:
            return getattr(super(Enforcing, self), name)(*args)
        self.done = NOT_DONE
        try:
            return method(self, *args)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            if self.done is NOT_DONE:
                raise
            self.views.could_not(self.at, name, error)  # the deed is done, but not what should have hidden it
            return self.done
        except Exception:
            self.mark = UNMARKED
            self.internal_error(f"enforcing in {name}")
            self.views.went_wrong(self.at)
            if self.done is not NOT_DONE:
                return self.done
            return _instead(self, name, args)

    operation.__name__, operation.__doc__ = name, method.__doc__
    return operation  # type: ignore[return-value]


def _instead(core: Enforcing, name: str, args: tuple[Any, ...]) -> Any:
    """What an operation does whose enforcing has failed. Another error of the guard's own is EIO to the caller."""
    own = getattr(core, f"_instead_of_{name}", None)
    try:
        return getattr(super(Enforcing, core), name)(*args) if own is None else own(*args)
    except (OSError, pyfuse3.FUSEError):
        raise
    except Exception:
        core.internal_error(name)
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None


class Enforcing(Listings):
    """The verdict on an operation, and the branch that it belongs to.

    done: the answer of the operation that is under way, once it is done. at: its transcript.
    """

    views: Views | None = None
    done: Any = NOT_DONE
    at = b""

    def _decides(self, node: Node) -> bool:
        """Whether the policy has to be asked before something is done to *node*."""
        return node.kind is Kind.TRANSCRIPT and self._asks(node.path())

    def _asks(self, path: bytes) -> bool:
        """The same for the transcript *path*. What began while the policy was enforced ends that way."""
        views, judge = self.views, self.judge
        if views is None or judge.off or path in views.given_up:
            return False
        self.at = path
        if path in views.of:
            views.touched.add(path)
            return True
        return judge.enforcing(path) and (judge.denies or judge.machine.watches(path))

    def _writer(self, ctx: Context) -> Writer:
        return self.processes.writer(ctx.pid, ctx.uid, ctx.gid)

    def _refuse(
        self, ruling: Ruling, op: str, begin: int, ctx: Context, path: bytes, **more: Any
    ) -> NoReturn:
        number = ruling.decision.errno or errno.EACCES
        self._marked(Mark("deny"), op, begin, ctx, path, number, None, **more)
        raise OSError(number, os.strerror(number))

    def _where(
        self, path: bytes, writer: Writer, ruling: Ruling, *, node: Node | None, what: str, **new: Any
    ) -> Live | None:
        """The branch that a change belongs to; None: the file itself."""
        views = self.views
        assert views is not None
        standing, process = ruling.standing, ruling.process
        staged = views.of.get(path)
        if standing.own and standing.owners:
            own = None if staged is None else staged.staging.own(process)
            if own is not None:
                assert staged is not None
                return staged.lives[own.number]
            if ruling.relation != "other" or ruling.decision.verdict == "allow":
                return None
        target: Branch | Key
        if ruling.decision.verdict == "allow" or ruling.relation == "none":
            if staged is None:
                return None
            target = staged.staging.target(standing, process, ruling.decision.lane)
            if isinstance(target, Branch):
                return staged.lives[target.number]
            if node is None or not isinstance(node.view, Live):
                return None  # else it is an open branch, and not its own
        if staged is not None and staged.staging.ghost and not staged.lost(node) and not standing.own:
            begun = staged.staging.own(process)
            if begun is None or standing.side:
                return None  # another file has the name, and the owner does not see it
            return staged.lives[begun.number]
        staged = views.staged(path)
        if staged is None:
            return None
        if staged.staging.ghost and not staged.lost(node) and staged.staging.own(process) is None:
            return None
        target = staged.staging.target(standing, process, ruling.decision.lane)
        return self._staged_on(staged, target, ruling, what, **new)

    def _staged_on(
        self, staged: Staged, target: Branch | Key, ruling: Ruling, what: str, **new: Any
    ) -> Live | None:
        """The branch *target*, made if need be, for the change of *ruling*; None if it cannot be kept."""
        views = self.views
        assert views is not None
        try:
            live = views.branch(staged, target, ruling.decision.lane, **new)
        except OSError as error:
            views.could_not(staged.staging.transcript, what, error)
            return None
        live.branch.used_by(ruling.process)
        live.decision = ruling.decision
        return live

    def _again(self, views: Views, staged: Staged, ctx: Context, view: Live | View) -> None:
        """ESTALE, so that the caller's next look finds *view*. Returns where that was tried already: a kernel that is
        told so twice tells its caller, who knows nothing of it."""
        if views.again(staged, ctx.pid, view):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _found(self, node: Node, ctx: Context) -> None:
        """The caller, should it have been told to look again, has done so, and has come to *node*."""
        staged = None if self.views is None else self.views.of.get(node.path())
        if staged is not None:
            staged.intents.pop(ctx.pid, None)

    def _marked(
        self,
        mark: Mark,
        op: str,
        begin: int,
        ctx: Context,
        path: bytes,
        number: int,
        node: Node | None = None,
        **more: Any,
    ) -> None:
        before = self.mark
        if before is not UNSEEN:
            self.mark = mark
        try:
            self.note(op, begin, ctx, Kind.TRANSCRIPT, path, number, node, **more)
        finally:
            self.mark = before

    def _aside(
        self,
        op: str,
        begin: int,
        ctx: Context,
        path: bytes,
        number: int,
        node: Node | None = None,
        **more: Any,
    ) -> None:
        self._marked(ASIDE, op, begin, ctx, path, number, node, **more)

    def _mark_of(self, live: Live) -> Mark:
        key = live.branch.key
        return Mark("stage", True, key.kind == "side", True, live.branch.number, live.decision)

    def _branch_stat(self, live: Live) -> Any:
        """Mode and owner of a branch: those of the file that it stands on, or of the one to be made."""
        facts = live.file.facts
        if live.base_fd >= 0 and not facts.replaces:
            return self.below.fstat(live.base_fd)
        return _Made(self.below.fstat(live.file.fd), facts.mode, facts.uid, facts.gid)

    def _keeping(self, path: bytes, node: Node | None, ruling: Ruling, act: Any) -> Any:
        """Do *act*, which changes attributes of the transcript *path*, by *node* if it is answered with attributes; its
        owner goes on seeing those that it relies on."""
        views = self.views
        assert views is not None
        staged = views.of.get(path)
        owners = self.judge.machine.owners(path)
        relies = bool(owners) and (staged is None or staged.staging.write_through(owners) is not None)
        if ruling.decision.verdict == "allow" or ruling.standing.owners or not relies:
            return act()
        staged = views.staged(path)
        if staged is None:
            return act()
        staged.holding = shown = staged.staging.held(self._real(staged))
        if self.keeper is not None:
            self.keeper.now()
        self.mark = Mark("stage", True, ruling.standing.own, True)
        try:
            self.done = result = act()
        except OSError:  # something may have been done all the same
            self._go_on_showing(views, staged, shown)
            raise
        finally:
            self.mark = UNMARKED
            staged.holding = None
        real = self._go_on_showing(views, staged, shown)
        if isinstance(result, pyfuse3.EntryAttributes) and node is not None and node.view is not None:
            return self.reply.show(node.view.shown(real))
        return result

    def _go_on_showing(self, views: Views, staged: Staged, shown: Fingerprint) -> Fingerprint:
        """The owner goes on seeing *shown*; the state that the file is in."""
        try:
            real = self._real(staged)
        except OSError as error:
            views.could_not(staged.staging.transcript, "attributes", error)
            return shown
        if real != shown:
            staged.staging.keep(shown, real)
        return real

    def _as_owner_sees(self, node: Node, reply: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
        """*reply*, which tells of *node* by a further name: the kernel keeps one set of attributes for a node, and its
        owner's are to stay."""
        shown = None if node.view is None else self.state(node)
        return reply if shown is None else self.reply.show(shown)

    def _answer(self, node: Node) -> pyfuse3.EntryAttributes:
        return self._as_owner_sees(node, super()._answer(node))

    def _real(self, staged: Staged) -> Fingerprint:
        """The state of the file that the owner relies on."""
        if staged.ghost is not None:
            return fingerprint(self.below.fstat(staged.ghost_fd))
        name, directory = staged.name, self.fds.of(staged.parent)
        try:
            return fingerprint(self.below.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return ABSENT


class _Made:
    """Attributes of a file that is only to be made: *st* with another mode and owner."""

    def __init__(self, st: os.stat_result, mode: int, uid: int, gid: int) -> None:
        self._st = st
        self.st_mode = 0o100000 | mode
        self.st_uid = uid
        self.st_gid = gid
        self.st_nlink = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._st, name)
