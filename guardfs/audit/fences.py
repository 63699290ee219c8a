"""From what the fence machine tells to what the log says: notices ``fence``, ``incident``, ``forgotten``, ``stale`` and
``lock``. Pure.

A check that passed, and a refresh, are not told: there is one with every delta of a reply.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from guardfs.audit.event import Notice
from guardfs.fence import effects as told
from guardfs.fence.changes import Change
from guardfs.fence.events import Actor
from guardfs.fence.fingerprint import Fingerprint


def notice_of(effect: told.Effect) -> Notice | None:
    """The notice of *effect*; None if the log does not tell of it."""
    if isinstance(effect, told.FenceOpened):
        fields = {"change": "opened", **_fence(effect.fence), "baseline": _state(effect.baseline)}
        if effect.adopted:
            fields["adopted"] = True
        return _notice("fence", effect.wall, effect.fence.transcript, fields)
    if isinstance(effect, told.FenceClosed):
        fields = {"change": "closed", **_fence(effect.fence), "reason": effect.reason}
        fields["lasted_ms"] = effect.lasted // 1_000_000
        return _notice("fence", effect.wall, effect.fence.transcript, fields)
    if isinstance(effect, told.Incident):
        return _notice("incident", effect.wall, effect.fence.transcript, _incident(effect))
    if isinstance(effect, told.Forgotten):
        fields = {**_fence(effect.fence), "changes": [_change(change) for change in effect.changes]}
        return _notice("forgotten", effect.wall, effect.fence.transcript, fields)
    if isinstance(effect, told.Stale):
        fields = {**_fence(effect.fence), "away_ms": effect.away // 1_000_000}
        return _notice("stale", effect.wall, effect.fence.transcript, fields)
    if isinstance(effect, told.LockLost | told.LockLeft | told.LockReclaimed):
        change = {told.LockLost: "lost", told.LockLeft: "left", told.LockReclaimed: "reclaimed"}[type(effect)]
        fields = {"change": change, "holder": _actor(effect.holder)}
        if not isinstance(effect, told.LockLeft):
            fields["by"] = _actor(effect.by)
        return _notice("lock", effect.wall, effect.transcript, fields)
    return None


def _notice(op: str, wall: int, transcript: bytes, fields: dict[str, Any]) -> Notice:
    return Notice(op, wall, fields, transcript)


def _incident(effect: told.Incident) -> dict[str, Any]:
    fields: dict[str, Any] = {
        **_fence(effect.fence),
        "outcome": "lost" if effect.lost else "saved",
        "kind": effect.kind,
        "expected": _state(effect.expected),
        "seen": _state(effect.seen),
        "baseline_time": stamp(effect.baseline_wall),
        "culprit": None if effect.culprit is None else _change(effect.culprit),
        "changes": [_change(change) for change in effect.changes],
        "count": effect.count,
        "after_ms": effect.after_ns / 1e6,
        "before_ms": effect.before_ns / 1e6,
        "version_rule": effect.rule,
        "content": msgspec.to_builtins(effect.content),
    }
    return fields


def _fence(fence: told.FenceFacts) -> dict[str, Any]:
    return {
        "token": fence.token,
        "owner": fence.lane,
        "process": {"tgid": fence.process[0], "start": fence.process[1]},
        "opened": stamp(fence.opened),
    }


def _actor(actor: Actor) -> dict[str, Any]:
    return {
        "lane": actor.lane,
        "tid": actor.tid,
        "tgid": actor.tgid,
        "start": actor.start,
        "main": actor.main,
    }


def _change(change: Change) -> dict[str, Any]:
    fields: dict[str, Any] = {"time": stamp(change.wall), "change": change.kind.word}
    if change.actor is not None:
        fields["by"] = _actor(change.actor)
    for key, state in (("before", change.before), ("after", change.after)):
        if state is not None:
            fields[key] = _state(state)
    if change.records:
        fields["records"] = msgspec.to_builtins(change.records)
    if change.to is not None:
        fields["to"] = change.to.decode("utf-8", "backslashreplace")
    for key in ("own", "continues", "locked"):
        if getattr(change, key):
            fields[key] = True
    return fields


def _state(state: Fingerprint) -> dict[str, int] | None:
    """A fingerprint; None for a file that is not there."""
    if not state.exists:
        return None
    return {
        "dev": state.dev,
        "ino": state.ino,
        "size": state.size,
        "mtime_ns": state.mtime_ns,
        "ctime_ns": state.ctime_ns,
    }


def stamp(wall: int) -> str:
    """ns since the epoch, as events write a time."""
    second, micro = divmod(wall // 1000, 1_000_000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}Z"
