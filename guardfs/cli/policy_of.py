"""Which policy was in force when an event was logged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Named(NamedTuple):
    """The policy that a log names. source: as `--policy` was given to the guard; digest: SHA-256 in hex, or ""."""

    source: str
    digest: str


def named_by(event: Mapping[str, Any]) -> Named | None:
    """The policy in force from *event* on, if it says so."""
    if event.get("op") not in ("policy", "start") or event.get("change") == "refused":
        return None
    policy = event.get("policy")
    if isinstance(policy, dict):  # of a start
        source, digest = policy.get("source"), policy.get("digest")
    else:
        source, digest = event.get("source") or policy, event.get("new")
    return Named(source, str(digest or "")) if isinstance(source, str) else None
