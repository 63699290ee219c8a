"""Whose operation it is, seen from the oldest open fence: the owner's, or somebody else's. Pure."""

from __future__ import annotations

from guardfs.fence.changes import is_mirror
from guardfs.fence.cycle import Cycle
from guardfs.fence.effects import Outcome
from guardfs.fence.events import CHANGES, Actor, Kind
from guardfs.fence.fence import Place, goes_on
from guardfs.fence.protocol import FenceProtocol
from guardfs.policy.model import FenceRelation
from guardfs.transcript.meta import RecordMeta


def relate(
    place: Place, actor: Actor, kind: Kind, records: tuple[RecordMeta, ...], protocol: FenceProtocol
) -> Outcome:
    """The relation of one operation to *place*'s fences, of which there is at least one. Changes nothing."""
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
        if _is_owners(place, actor, kind, records, continues, protocol):
            relation = "own"
    return Outcome(relation, facts.token, facts.lane, own_token, continues)


def serves(cycle: Cycle, actor: Actor, protocol: FenceProtocol) -> bool:
    """Whether what *actor*, a thread of the holder's process, does while *cycle* runs can be its owner's work."""
    return not protocol.bystander(cycle) and (cycle.kin(actor) or (cycle.begun and not cycle.over))


def _is_owners(
    place: Place,
    actor: Actor,
    kind: Kind,
    records: tuple[RecordMeta, ...],
    continues: bool,
    protocol: FenceProtocol,
) -> bool:
    """Whether what a thread of the owner's process does is the owner's. A change is, under its own lock, or when
    the main thread goes on from the owner's last record; all else is, too; unless the running cycle has shown
    itself to be another lane's, or the owner has not looked yet, or it is a delivery that has joined the cycle."""
    cycle = place.cycles.get((actor[0], actor[1]))
    if cycle is not None and serves(cycle, actor, protocol):
        if cycle.kin(actor) and records and is_mirror(records[0]):
            return False
    elif cycle is not None:
        if cycle.kin(actor):
            return False
        cycle = None
    holds = cycle is not None and not cycle.orphan
    return holds or kind not in CHANGES or (continues and actor.main)
