"""Where each format keeps type, role, id and parent of a record. Pure.

Two functions a format: one from the few keys that matter, decoded into a struct, and a general one from a whole
object (`guardfs.transcript.reading`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from guardfs.transcript.meta import INVALID, MAX_VALUE, RecordMeta, cut
from guardfs.transcript.reading import parser, peeker


class _Message(msgspec.Struct, gc=False):
    role: str | None = None
    provider: str | None = None
    model: str | None = None


class _Pi(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    parentId: str | None = None  # noqa: N815 - the keys in the file
    message: _Message | None = None
    targetId: str | msgspec.UnsetType | None = msgspec.UNSET  # noqa: N815
    appendParentId: str | msgspec.UnsetType | None = msgspec.UNSET  # noqa: N815
    appendMode: str | None = None  # noqa: N815


class _Claude(msgspec.Struct, gc=False):
    type: str | None = None
    uuid: str | None = None
    parentUuid: str | None = None  # noqa: N815
    logicalParentUuid: str | None = None  # noqa: N815
    isSidechain: bool | None = None  # noqa: N815
    message: _Message | None = None


class _Payload(msgspec.Struct, gc=False):
    id: str | None = None
    role: str | None = None
    model: str | None = None
    model_provider: str | None = None


class _Codex(msgspec.Struct, gc=False):
    type: str | None = None
    ordinal: int | None = None
    payload: _Payload | None = None


class _Gemini(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    model: str | None = None
    session: str | None = msgspec.field(default=None, name="sessionId")
    set: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="$set")
    rewind: str | None = msgspec.field(default=None, name="$rewindTo")


class _Line(msgspec.Struct, gc=False):
    type: str | None = None
    role: str | None = None
    model: str | None = None


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= MAX_VALUE else cut(value)


# ---- pi


def _pi(found: _Pi) -> RecordMeta:
    message = found.message
    if message is not None:
        return RecordMeta(
            _short(found.type),
            _short(message.role),
            _short(found.id),
            _short(found.parentId),
            _short(message.provider),
            _short(message.model),
            side=found.appendMode == "side",
        )
    if found.type == "leaf":
        return _pi_leaf(found.id, found.parentId, found.targetId, found.appendParentId)
    return RecordMeta(
        _short(found.type), None, _short(found.id), _short(found.parentId), side=found.appendMode == "side"
    )


def _pi_leaf(record_id: object, parent: object, target: object, onto: object) -> RecordMeta:
    """A leaf that points nowhere known (a number, no target) keeps no target, and moves nothing."""
    to = "" if target is None else cut(target)
    after = "" if onto is None else cut(onto)
    if onto is not msgspec.UNSET and after is None:
        to = None
    return RecordMeta(
        "leaf", None, cut(record_id), cut(parent), target=to, onto=None if to is None else after
    )


def _pi_any(found: dict[str, Any]) -> RecordMeta:
    inner = found.get("message")
    message = inner if isinstance(inner, dict) else {}
    if found.get("type") == "leaf" and not message:
        return _pi_leaf(
            found.get("id"),
            found.get("parentId"),
            found.get("targetId", msgspec.UNSET),
            found.get("appendParentId", msgspec.UNSET),
        )
    return RecordMeta(
        cut(found.get("type")),
        cut(message.get("role")),
        cut(found.get("id")),
        cut(found.get("parentId")),
        cut(message.get("provider")),
        cut(message.get("model")),
        side=found.get("appendMode") == "side",
    )


# ---- claude-code


def _claude(found: _Claude) -> RecordMeta:
    message = found.message
    parent = found.parentUuid
    return RecordMeta(
        _short(found.type),
        None if message is None else _short(message.role),
        _short(found.uuid),
        _short(found.logicalParentUuid if parent is None else parent),
        None,
        None if message is None else _short(message.model),
        side=found.isSidechain is True,
    )


def _claude_any(found: dict[str, Any]) -> RecordMeta:
    inner = found.get("message")
    message = inner if isinstance(inner, dict) else {}
    parent = found.get("parentUuid")
    return RecordMeta(
        cut(found.get("type")),
        cut(message.get("role")),
        cut(found.get("uuid")),
        cut(parent if isinstance(parent, str) else found.get("logicalParentUuid")),
        None,
        cut(message.get("model")),
        side=found.get("isSidechain") is True,
    )


# ---- codex


def _codex(found: _Codex) -> RecordMeta:
    payload = found.payload
    record_id = None if found.ordinal is None else _ordinal(found.ordinal)
    if payload is None:
        return RecordMeta(_short(found.type), None, record_id)
    if found.type == "session_meta":
        record_id = _short(payload.id)
    return RecordMeta(
        _short(found.type),
        _short(payload.role),
        record_id,
        None,
        _short(payload.model_provider),
        _short(payload.model),
    )


def _codex_any(found: dict[str, Any]) -> RecordMeta:
    inner = found.get("payload")
    payload = inner if isinstance(inner, dict) else {}
    header = found.get("type") == "session_meta"
    return RecordMeta(
        cut(found.get("type")),
        cut(payload.get("role")),
        cut(payload.get("id")) if header else _ordinal(found.get("ordinal")),
        None,
        cut(payload.get("model_provider")),
        cut(payload.get("model")),
    )


def _ordinal(value: object) -> str | None:
    """A number as Codex counts: unsigned, 64 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        return None
    return str(value)


# ---- gemini-cli


def _gemini(found: _Gemini) -> RecordMeta:
    if found.rewind is not None:
        return RecordMeta("$rewindTo", target=cut(found.rewind))
    if found.id is not None:
        return RecordMeta(_short(found.type), None, _short(found.id), None, None, _short(found.model))
    if found.set is not msgspec.UNSET:
        return RecordMeta("$set")
    if found.session is not None:
        return RecordMeta("session", None, cut(found.session))
    return RecordMeta(_short(found.type))


def _gemini_any(found: dict[str, Any]) -> RecordMeta:
    if isinstance(found.get("$rewindTo"), str):
        return RecordMeta("$rewindTo", target=cut(found["$rewindTo"]))
    if isinstance(found.get("id"), str):
        return RecordMeta(cut(found.get("type")), None, cut(found["id"]), None, None, cut(found.get("model")))
    if "$set" in found:
        return RecordMeta("$set")
    if isinstance(found.get("sessionId"), str):
        return RecordMeta("session", None, cut(found["sessionId"]))
    return RecordMeta(cut(found.get("type")))


# ---- lines


def _line(found: _Line) -> RecordMeta:
    return RecordMeta(_short(found.type), _short(found.role), model=_short(found.model))


def _line_any(found: dict[str, Any]) -> RecordMeta:
    return RecordMeta(cut(found.get("type")), cut(found.get("role")), model=cut(found.get("model")))


parse_pi = parser(_Pi, _pi, _pi_any, INVALID)
parse_claude = parser(_Claude, _claude, _claude_any, INVALID)
parse_codex = parser(_Codex, _codex, _codex_any, INVALID)
parse_gemini = parser(_Gemini, _gemini, _gemini_any, INVALID)
parse_line = parser(_Line, _line, _line_any, RecordMeta())

peek_pi = peeker(_pi_any, (b"message",))
peek_claude = peeker(_claude_any, (b"message",))
peek_codex = peeker(_codex_any, (b"payload",))
peek_gemini = peeker(_gemini_any, (b"$set",))
peek_line = peeker(_line_any)
