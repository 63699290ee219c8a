"""What each OpenClaw version makes of a changed transcript: its fence rules, as far as the facts go. Pure.

Each rule was read in the package that the npm registry has under the versions that `Rule.read` names (the code around
"session file changed while embedded prompt lock was released"), and says in which other versions it is taken to hold.
All of them compare dev, ino, size, mtime and ctime; they differ in what they accept when these differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import msgspec

from guardfs.fence.changes import Content
from guardfs.fence.fingerprint import Fingerprint, difference, same_file

Answer = Literal["same", "accepts", "dies", "unknown"]
"""Of a check: nothing changed; changed, and the run goes on; changed, and the turn dies; the facts do not tell."""

_MAX_ADVANCE = 1 << 20
"""Bytes of foreign appends that 2026.5.22 and later look at; more is fatal."""

_MAX_DIGEST = 32 << 20
"""Size up to which 2026.6.11 and later can tell that only the ctime changed."""


class Rule(msgspec.Struct, frozen=True, eq=False):
    """The fence rule of some versions. since, until: the versions it is taken to hold for, inclusive. read: the
    packages in which it was read. forgets: whether what it accepts is left on a dead branch (else it is merged
    in)."""

    name: str
    since: tuple[int, int, int]
    until: tuple[int, int, int]
    read: tuple[str, ...]
    says: str
    judge: Callable[[Fingerprint, Fingerprint, Content], Answer]
    forgets: bool = True

    def answer(self, expected: Fingerprint, seen: Fingerprint, content: Content) -> Answer:
        """What such a version does at a check that expects one fingerprint and sees another, when *content* is what
        changed in between."""
        return "same" if expected == seen else self.judge(expected, seen, content)


def _strict(expected: Fingerprint, seen: Fingerprint, content: Content) -> Answer:
    return "dies"


def _assistant(expected: Fingerprint, seen: Fingerprint, content: Content) -> Answer:
    if not (same_file(expected, seen) and seen.size > expected.size):
        return "dies"
    if not content.appends or content.torn or not content.assistant:
        return "dies" if content.known or not content.assistant else "unknown"
    return "accepts" if content.known and content.records else "unknown"


def _mirror(expected: Fingerprint, seen: Fingerprint, content: Content) -> Answer:
    if not (same_file(expected, seen) and seen.size > expected.size):
        return "unknown" if content.own and content.known else "dies"
    grown = seen.size - expected.size
    if content.known and content.appends and content.records and not content.torn:
        if content.mirror and grown <= _MAX_ADVANCE:
            return "accepts"
        return "unknown" if content.own else "dies"
    return "unknown" if content.own or not content.known else "dies"


def _merging(expected: Fingerprint, seen: Fingerprint, content: Content) -> Answer:
    if difference(expected, seen) == "times" and expected.mtime_ns == seen.mtime_ns:
        return "accepts" if seen.size <= _MAX_DIGEST else "unknown"
    if (
        same_file(expected, seen)
        and 0 < seen.size - expected.size <= _MAX_ADVANCE
        and content.known
        and content.appends
        and content.records
        and not content.torn
        and content.side
    ):
        return "accepts"
    if content.own or not content.known:
        return "unknown"
    return "dies"


STRICT = Rule(
    "2026.5.17-5.19",
    (2026, 5, 17),
    (2026, 5, 19),
    ("2026.5.18", "2026.5.19"),
    "any difference kills the turn",
    _strict,
)
ASSISTANT = Rule(
    "2026.5.20",
    (2026, 5, 20),
    (2026, 5, 21),
    ("2026.5.20",),
    "accepts the same file grown by lines of the role assistant only, and then forgets them",
    _assistant,
)
MIRROR = Rule(
    "2026.5.22-6.1",
    (2026, 5, 22),
    (2026, 6, 1),
    ("2026.5.22", "2026.5.28", "2026.6.1"),
    "accepts the same file grown by at most 1 MiB of the gateway's own deliveries (model delivery-mirror or "
    "gateway-injected), and what the same process published as its own write",
    _mirror,
)
MERGING = Rule(
    "2026.6.11-7.x",
    (2026, 6, 11),
    (2026, 7, 99),
    ("2026.6.11", "2026.6.35", "2026.7.1", "2026.7.35"),
    "accepts a change of the ctime alone, and merges in the gateway's own deliveries, custom, label, session_info "
    "and side leaf records up to 1 MiB, and what the same process published as its own write",
    _merging,
    forgets=False,
)
RULES = (STRICT, ASSISTANT, MIRROR, MERGING)
DEFAULT = ASSISTANT

NOT_FENCED = "from 2026.8.1 on transcripts are in SQLite: there is no fence"
UNKNOWN = "its fence rule is not known"


def parse_version(text: str) -> tuple[int, int, int] | None:
    """``2026.5.20``, ``v2026.5.20``, ``2026.7.1-beta.2`` as three numbers; None for what is no such version."""
    match = re.fullmatch(r"v?(\d{4})\.(\d{1,3})\.(\d{1,3})(?:[-+].*)?", text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def rule_for(version: str) -> Rule | None:
    """The rule of *version*; None if there is none, or none is known: `about` says which."""
    numbers = parse_version(version)
    if numbers is None:
        return None
    return next((rule for rule in RULES if rule.since <= numbers <= rule.until), None)


def about(version: str) -> str:
    """One line on a version: its rule, that it has none, or that nobody knows."""
    rule = rule_for(version)
    if rule is not None:
        return rule.says
    numbers = parse_version(version)
    if numbers is not None and numbers >= (2026, 8, 1):
        return NOT_FENCED
    return UNKNOWN


def answers(expected: Fingerprint, seen: Fingerprint, content: Content) -> list[tuple[Rule, Answer]]:
    """What every known rule says of one check, oldest first."""
    return [(rule, rule.answer(expected, seen, content)) for rule in RULES]
