"""Which operations the log takes at which level. Pure; `AuditLog.wants` reads one of these tables."""

from __future__ import annotations

from typing import Literal

from guardfs.audit.event import Kind

Level = Literal["changes", "transcripts", "all"]

# fmt: off
CHANGES = frozenset((
    "create", "write", "truncate", "attributes", "rename", "link", "symlink", "unlink", "mkdir", "rmdir",
    "mknod", "xattr",
))
# fmt: on
"""Operations that change something: at every level, on every path."""

SEEN = frozenset(("open", "look", "sync"))
"""What level ``transcripts`` adds on transcripts and locks: who looked and when decides who relied on what
(design, section 5). Reads and closes say no more about it and are many; level ``all`` has them."""

QUIET = frozenset(("open", "look", "close", "read", "list", "sync"))
"""Operations that change nothing."""


class Wanted(dict[str, tuple[bool, bool, bool]]):
    """op -> wanted or not, indexed by `Kind`. An operation that nobody named is wanted: rather one line too
    many."""

    def __missing__(self, op: str) -> tuple[bool, bool, bool]:
        return (True, True, True)


def wanted(level: Level) -> Wanted:
    """The table of *level*."""
    table = Wanted(dict.fromkeys(CHANGES, (True, True, True)))
    for op in QUIET:
        if level == "all":
            table[op] = (True, True, True)
        else:
            seen = level == "transcripts" and op in SEEN
            table[op] = tuple(seen and kind is not Kind.OTHER for kind in Kind)  # type: ignore[assignment]
    return table


# fmt: off
NOTICES = frozenset((
    "start", "stop", "process", "policy", "fence", "incident", "forgotten", "stale", "lock", "unseen", "gap", "torn",
    "log", "error", "mode", "branch", "ghost", "unstaged", "recovered",
    "takeover", "unguarded",
))
# fmt: on
"""What the guard itself says, at every level."""
