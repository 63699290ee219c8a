"""Whose operation it is, seen from the oldest open fence: the owner's, or somebody else's. Pure."""

from __future__ import annotations

from typing import NamedTuple

from guardfs.fence.changes import is_mirror
from guardfs.fence.cycle import Cycle
from guardfs.fence.effects import NONE, Outcome
from guardfs.fence.events import Actor, Kind
from guardfs.fence.fence import Place, goes_on
from guardfs.fence.protocol import FenceProtocol
from guardfs.policy.model import FenceRelation
from guardfs.transcript.meta import RecordMeta


class Standing(NamedTuple):
    """How one operation stands to the fences of its transcript.

    fenced: a fence is open, or about to. own: its process has a fence of its own, open, about to, or closed by the idle
    timeout. owners: the operation is that fence's owner's, not another lane's of the same process. cycle: its process
    is in a lock cycle. silent: the idle timeout has closed its process's fence, and by a main thread nothing shows so
    far that the owner is back: that looks in a lock cycle first, by a pool thread. side: its process is about to open a
    fence behind another one's, and the operation is another lane's of it.
    """

    fenced: bool = False
    own: bool = False
    owners: bool = False
    cycle: bool = False
    silent: bool = False
    side: bool = False


NO_FENCE = Standing()


def relate(
    place: Place,
    actor: Actor,
    kind: Kind,
    records: tuple[RecordMeta, ...],
    protocol: FenceProtocol,
    truncates: bool = False,
) -> Outcome:
    """The relation of one operation to *place*'s fences, or to the one that is about to open: that has no token yet.
    Changes nothing."""
    if not place.fences:
        return _relate_opening(place, actor, kind, records, protocol, truncates)
    first = place.fences[0]
    facts = first.facts
    process = (actor[0], actor[1])
    own_token = 0
    for fence in place.fences:
        if fence.facts.process == process:
            own_token = fence.facts.token
    relation: FenceRelation = "other"
    continues = False
    if facts.process == process:
        continues = bool(records) and goes_on(records, place.leaf(first))
        if _is_owners(place, place.leaf(first), actor, kind, records, protocol, truncates):
            relation = "own"
    return Outcome(relation, facts.token, facts.lane, own_token, continues)


def _relate_opening(
    place: Place,
    actor: Actor,
    kind: Kind,
    records: tuple[RecordMeta, ...],
    protocol: FenceProtocol,
    truncates: bool,
) -> Outcome:
    cycle = place.opening
    if cycle is None:
        return NONE
    owner = cycle.actor.lane
    if not _opens(place, cycle, actor, kind, records, protocol, truncates):
        return Outcome("other", 0, owner)
    return Outcome("own", 0, owner, 0, bool(records) and goes_on(records, cycle.leaf))


def _opens(
    place: Place,
    cycle: Cycle,
    actor: Actor,
    kind: Kind,
    records: tuple[RecordMeta, ...],
    protocol: FenceProtocol,
    truncates: bool,
) -> bool:
    """Whether *actor* works in the cycle in which a fence is about to open. What threads of the holder's kind do there
    is the holder's in any case: should it be a delivery, it relies on nothing."""
    if actor.process != cycle.actor.process:
        return False
    return cycle.kin(actor) or _is_owners(place, cycle.leaf, actor, kind, records, protocol, truncates)


def standing(
    place: Place,
    actor: Actor,
    kind: Kind,
    records: tuple[RecordMeta, ...],
    protocol: FenceProtocol,
    truncates: bool = False,
) -> Standing:
    """The same, seen from the process's own fence, whether it is the oldest one or not."""
    process = (actor[0], actor[1])
    own, opening = place.any_fence(process), place.opening
    owners = False
    if own is not None:
        owners = _is_owners(place, place.leaf(own), actor, kind, records, protocol, truncates)
    elif opening is not None and opening.actor.process == process:
        owners = _opens(place, opening, actor, kind, records, protocol, truncates)
        return Standing(True, True, owners, True)
    cycle = place.cycles.get(process)
    silent = own is not None and own.idle and actor.main and (cycle is None or not cycle.looks)
    side = (
        own is None
        and cycle is not None
        and cycle.opening
        and not _opens(place, cycle, actor, kind, records, protocol, truncates)
    )
    fenced = bool(place.fences) or opening is not None
    return Standing(fenced, own is not None, owners, cycle is not None, silent, side)


def serves(cycle: Cycle, actor: Actor, protocol: FenceProtocol) -> bool:
    """Whether what *actor*, a thread of the holder's process, does while *cycle* runs can be its owner's work."""
    return not protocol.bystander(cycle) and (cycle.kin(actor) or (cycle.begun and not cycle.over))


def _uncontested(place: Place, cycle: Cycle) -> bool:
    """Whether a turn that begins in *cycle*, whose lock file was taken from it, is alone with the transcript all the
    same: nobody has the lock now, or a fence."""
    return cycle.opening and place.holder is None and not place.fences and not place.away


def _is_owners(
    place: Place,
    leaf: str | None,
    actor: Actor,
    kind: Kind,
    records: tuple[RecordMeta, ...],
    protocol: FenceProtocol,
    truncates: bool,
) -> bool:
    """Whether what a thread of the owner's process does is the owner's: never in a cycle that has shown itself to be
    another lane's, nor if it is a delivery that has joined the owner's; beyond that the protocol tells. leaf: id of the
    owner's last record."""
    cycle = place.cycles.get((actor[0], actor[1]))
    holds = False
    if cycle is not None and serves(cycle, actor, protocol):
        if cycle.kin(actor) and records and is_mirror(records[0]):
            return False
        holds = not cycle.orphan or _uncontested(place, cycle)
    elif cycle is not None and cycle.kin(actor):
        return False
    continues = goes_on(records, leaf) if records else None
    rewrites = cycle is not None and cycle.kept and not cycle.taken
    return protocol.owns(
        actor, kind, holds=holds, continues=continues, truncates=truncates, rewrites=rewrites
    )
