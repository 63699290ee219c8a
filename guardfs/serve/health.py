"""Whether guards do what they are there for. Pure: told what a guard says of itself."""

from __future__ import annotations

from typing import Any


def reasons(status: dict[str, Any] | None, trouble: str | None) -> list[str]:
    """Why a guard is not ready; nothing if it is. trouble: why there is no status."""
    if status is None:
        return [trouble or "does not answer"]
    found = []
    audit, branches = _section(status, "audit"), _section(status, "branches")
    if audit.get("failing"):
        found.append(f"the audit log cannot be written: {audit.get('error') or 'unknown reason'}")
    if branches.get("failing"):
        found.append(f"branches that cannot be rebased: {branches['failing']}")
    if branches.get("given_up"):
        found.append(f"transcripts given up after internal errors: {branches['given_up']}")
    return found


def notes(status: dict[str, Any] | None) -> list[str]:
    """What an operator should know of a guard that is ready all the same: what is past, or was wanted."""
    if status is None:
        return []
    found = []
    policy, audit, errors = (_section(status, name) for name in ("policy", "audit", "internal_errors"))
    if policy.get("mode") == "off":
        found.append("switched off")
    if policy.get("error"):
        found.append(f"the policy's file is not what is in force: {policy['error']}")
    if audit.get("dropped"):
        found.append(f"events missing from the log: {audit['dropped']}")
    if errors.get("count"):
        found.append(f"internal errors: {errors['count']}")
    return found


def _section(status: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a status; an empty one where a daemon of another version has none."""
    found = status.get(name)
    return found if isinstance(found, dict) else {}
