"""What the live page says of a guard itself: mode, policy in force, hits by rule, what needs a look. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardfs.cli.status import attention
from guardfs.report.values import mapping, number, text

MAX_RULES = 200


def about(status: Mapping[str, Any], silent: str, unread: str) -> dict[str, Any]:
    """What is shown, JSON-able. silent: why the guard does not answer; unread: why its log cannot be read; "": it does,
    it can. Times: us since the epoch."""
    policy, daemon, branches = (mapping(status.get(key)) for key in ("policy", "daemon", "branches"))
    rules = [[text(name), number(hits)] for name, hits in mapping(policy.get("hits")).items()]
    by = mapping(policy.get("mode_from"))
    return {
        "silent": text(silent),
        "unread": text(unread),
        "mode": text(policy.get("mode")),
        "mode_from": text(by.get("source")),
        "version": text(status.get("version")),
        "started": number(daemon.get("started_ns")) // 1000,
        "source": text(policy.get("source")),
        "digest": text(policy.get("digest")),
        "since": number(policy.get("since_ns")) // 1000,
        "reloads": number(policy.get("reloads")),
        "error": text(policy.get("error")),
        "lanes": number(policy.get("lanes")),
        "rules": rules[:MAX_RULES],
        "rebased": number(branches.get("merged")),
        "conflicts": number(branches.get("conflicts")),
        "attention": [text(line) for line in attention(dict(status))] if status else [],
    }
