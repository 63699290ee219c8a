"""What the journal does not say of a transcript with more than one view: who is shown what, by which node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from guardfs.fence.events import ProcessKey
from guardfs.fence.fingerprint import Fingerprint
from guardfs.fence.staging import View
from guardfs.mount.memory.store import Kind, Record, Store

if TYPE_CHECKING:
    from guardfs.mount.views import Live, Staged, Views


class BranchKept(msgspec.Struct, array_like=True, gc=False):
    """A branch: see `guardfs.fence.staging.Branch`. node: id, 0 if none. handles: numbers of those that read and write
    it, and whether their descriptor is that of its data."""

    number: int
    key: tuple[str, ProcessKey, str]
    lane: str
    processes: list[ProcessKey]
    exists: bool
    whole: bool
    base: int
    shown: Fingerprint
    order: int
    written: int
    opened: int
    made: bool
    node: int
    handles: list[tuple[int, bool]]


class StagedKept(msgspec.Struct, array_like=True, gc=False):
    """A transcript: see `guardfs.mount.views.Staged`. staged: there is more than one view. holding: what its owner is
    to go on seeing, while attributes are being changed. intents: of a thread: the branch that it is to find, 0 the
    owner's view, -1 the committed one. names, told, repeats: see `guardfs.mount.views.looking`."""

    transcript: bytes
    staged: bool
    parent: int
    name: bytes
    node: int
    outside: int
    hold: tuple[Fingerprint, Fingerprint] | None
    holding: Fingerprint | None
    ghost: int
    forgive: bool
    lingers: ProcessKey
    closed: int
    forgiven: tuple[int, Fingerprint] | None
    intents: list[tuple[int, int, int]]
    branches: list[BranchKept]
    names: int | None
    told: list[tuple[int, int]]
    repeats: list[tuple[int, int]]
    order: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StagedKept).decode

_VIEWS = {View.OWNER: 0, View.COMMITTED: -1}


class ViewLedger:
    """Writes down what has changed of the transcripts that were touched."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._at: dict[bytes, int] = {}
        self._last: dict[bytes, bytes] = {}

    def keep(self, views: Views) -> None:
        """All of *views* that was touched since the last time."""
        touched, views.touched = views.touched, set()
        for transcript in touched:
            kept = _of(views, transcript)
            if kept is None:
                address = self._at.pop(transcript, 0)
                if address:
                    self._store.free(address)
                    del self._last[transcript]
                continue
            data = _encode(kept)
            if self._last.get(transcript) != data:
                self._at[transcript] = self._store.replace(self._at.get(transcript, 0), Kind.STAGED, data)
                self._last[transcript] = data

    def adopt(self, transcript: bytes, record: Record) -> None:
        """*record* is what is kept of *transcript*."""
        self._at[transcript] = record.address
        self._last[transcript] = record.data


def kept_of(record: Record) -> StagedKept:
    """What `ViewLedger.keep` wrote."""
    return _decode(record.data)


def _of(views: Views, transcript: bytes) -> StagedKept | None:
    staged = views.of.get(transcript)
    names = views.names.get(transcript)
    told, repeats = views.transient(transcript)
    if staged is None:
        if names is None and not told and not repeats:
            return None
        return StagedKept(
            transcript, False, 0, b"", 0, 0, None, None, 0, False, (0, 0), 0, None, [], [], names, told,
            repeats, views.order,
        )  # fmt: skip
    staging = staged.staging
    return StagedKept(
        transcript,
        True,
        staged.parent.id,
        staged.name,
        0 if staged.node is None else staged.node.id,
        0 if staged.outside is None else staged.outside.id,
        None if staging.hold is None else (staging.hold.real, staging.hold.shown),
        staged.holding,
        0 if staged.ghost is None or not staging.ghost else staged.ghost[0],
        staging.forgive,
        staging.lingers,
        staged.closed,
        staged.forgiven,
        [(tid, _view(view), when) for tid, (view, when) in staged.intents.items()],
        [_branch(live) for live in staged.lives.values()],
        names,
        told,
        repeats,
        views.order,
    )


def _view(view: Live | View) -> int:
    return _VIEWS[view] if isinstance(view, View) else view.branch.number


def _branch(live: Live) -> BranchKept:
    branch = live.branch
    return BranchKept(
        branch.number,
        branch.key,
        branch.lane,
        sorted(branch.processes),
        branch.exists,
        branch.whole,
        branch.base,
        branch.shown,
        branch.order,
        branch.written,
        branch.opened,
        branch.made,
        0 if live.node is None else live.node.id,
        [(handle.number, handle.journal) for handle in live.handles],
    )


def staged_view(staged: Staged, number: int) -> Live | View | None:
    """The view that was kept as *number*; None if it is no more."""
    for view, known in _VIEWS.items():
        if number == known:
            return view
    return staged.lives.get(number)
