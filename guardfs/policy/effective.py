"""What holds in the end: a policy, and the options of the command line over it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from guardfs.policy.model import Level, Mode, Policy, bytes_of


class Overrides(msgspec.Struct, frozen=True, omit_defaults=True):
    """Options of the command line; None: not given, the policy's value counts. max_bytes: bytes."""

    mode: Mode | None = None
    level: Level | None = None
    required: bool | None = None
    hash_ids: bool | None = None
    max_bytes: int | None = None
    keep: int | None = None


class Effective(msgspec.Struct, frozen=True):
    """The settings in force. max_bytes: bytes; the others as in `guardfs.policy.model.Audit`."""

    mode: Mode
    level: Level
    required: bool
    hash_ids: bool
    max_bytes: int
    keep: int


def effective(policy: Policy, over: Overrides) -> Effective:
    """*policy* with the options *over* it."""

    def choose(option: Any, value: Any) -> Any:
        return value if option is None else option

    audit = policy.audit
    return Effective(
        mode=choose(over.mode, policy.mode),
        level=choose(over.level, audit.level),
        required=choose(over.required, audit.required),
        hash_ids=choose(over.hash_ids, audit.hash_ids),
        max_bytes=choose(over.max_bytes, bytes_of(audit.max_size)),
        keep=choose(over.keep, audit.keep),
    )


def unchangeable(now: Effective, wanted: Effective, policy: Policy, other: Policy) -> tuple[str, str] | None:
    """What a running guard cannot take over when *other* follows *policy*, and the mend; None if it can take over
    all."""
    if policy.fence.protocol != other.fence.protocol:
        return (
            "fence.protocol cannot change while the directory is guarded: open fences would never close",
            "unmount and mount again, or take this change back",
        )
    if now.hash_ids != wanted.hash_ids:
        return (
            "audit.hash_ids cannot change while the directory is guarded: one log would name the same user in two ways",
            "unmount and mount again, or take this change back",
        )
    return None
