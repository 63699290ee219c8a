"""Who is to blame for a check that failed. Pure."""

from __future__ import annotations

from guardfs.fence.changes import Change, Changes
from guardfs.fence.cycle import Look
from guardfs.fence.effects import CulpritKind, Incident
from guardfs.fence.events import Kind
from guardfs.fence.fence import Fence
from guardfs.fence.fingerprint import ABSENT, Fingerprint, difference
from guardfs.fence.versions import Rule


def saved(fence: Fence, look: Look, rule: Rule) -> Incident | None:
    """What *look* would have found without the guard, if the turn had died of it."""
    changes = look.staged
    if changes is None:
        return None
    seen = changes.all()[-1].after or ABSENT
    if rule.answer(fence.baseline, seen, changes.content()) != "dies":
        return None
    return incident(fence, look, rule, changes, seen, lost=False)


def incident(
    fence: Fence, look: Look, rule: Rule, changes: Changes, seen: Fingerprint, *, lost: bool = True
) -> Incident:
    """The story of *fence*'s failed check, made by *look*, or of the one that the guard has kept from failing."""
    culprit = _culprit(changes, fence)
    kind: CulpritKind
    if culprit is None:
        kind = "drift" if difference(fence.baseline, seen) == "times" else "unseen"
        at = look.mono
    else:
        kind, at = _kind(culprit), culprit.mono
    return Incident(
        fence.facts,
        fence.baseline,
        seen,
        fence.baseline_wall,
        look.wall,
        kind,
        culprit,
        changes.all(),
        changes.count,
        changes.content(),
        max(0, at - fence.baseline_mono),
        max(0, look.mono - at),
        rule.name,
        lost,
    )


def _culprit(changes: Changes, fence: Fence) -> Change | None:
    """The first change that nobody would have forgiven: of those after the owner's last look, if there are any; the
    owner's own under its lock only if there is no other."""
    kept = changes.all()
    own = fence.own_look
    later = [each for each in kept if own is not None and each.mono >= own.mono]
    foreign = [each for each in kept if not (each.own and each.continues and each.locked)]
    for candidates in (later, foreign, kept):
        for change in candidates:
            if not _forgivable(change):
                return change
        if candidates:
            return candidates[-1]
    return None


def _forgivable(change: Change) -> bool:
    """Whether OpenClaw 2026.5.20 alone would have gone on after it: the rule that most turns in the field die of."""
    return (
        change.kind is Kind.APPEND
        and bool(change.records)
        and all(record.role == "assistant" for record in change.records)
    )


def _kind(change: Change) -> CulpritKind:
    if change.actor is None:
        return "drift" if change.times_only else "unseen"
    if change.kind is Kind.ATTRIBUTES:
        return "metadata"
    if change.own and not change.locked:
        return "own"
    return "lane"
