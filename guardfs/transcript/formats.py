"""How agents write their transcripts: one named strategy each. Pure.

| name | a record | the history |
|---|---|---|
| pi | pi's and OpenClaw's: `id`, `parentId` | along parents, from the last record or where a ``leaf`` record points |
| claude-code | `uuid`, `parentUuid` | along parents, from the last record with a uuid that is no side chain |
| codex | `timestamp`, `ordinal`, `type`, `payload` | the order of the file |
| gemini-cli | `id`; ``$set``, ``$rewindTo`` | the order of the file; an id that comes again replaces |
| lines | any JSON | the order of the file |

Sources: pi's session format, OpenClaw 2026.7's transcript reader (``leaf`` records), Gemini CLI's chat recording
service and Codex's rollout recorder, as published. Claude Code does not document its format; what stands here
is what its public issue reports show (#22107, #35024, #92089 of anthropics/claude-code).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from guardfs.transcript import parsers, splice
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.reading import Parse


class Place(enum.Enum):
    """What a record is to the history."""

    HEADER = "header"
    NODE = "node"
    """A step of the conversation; the newest one is the leaf."""
    SIDE = "side"
    """Hangs on a step, but is beside the conversation and never its leaf."""
    LEAF = "leaf"
    """Moves the leaf to its target."""
    REWIND = "rewind"
    """Takes back its target and all that follows."""
    APART = "apart"
    """No part of the history: settings, snapshots, what cannot be read."""


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a transcript.

    parse: the meta data of one line, without its newline; never raises. peek: the same of the first bytes of a line
    that is too long to be collected. parents: whether records name their parent; else the history is the order of the
    file. parent_keys: where the parent stands; the first one that holds a string. id_keys: where the id stands that
    parents name; target_keys: and where that of a ``leaf`` record's target does. replaces: whether an id that
    comes again replaces the record (else it is a second record, or a fault). cursor: pi's rule that what is
    appended behind a side record names that as its parent, and yet continues the leaf.
    """

    name: str
    parse: Parse
    peek: Parse
    place: Callable[[RecordMeta], Place]
    parents: bool = False
    parent_keys: tuple[bytes, ...] = ()
    id_keys: tuple[bytes, ...] = ()
    target_keys: tuple[bytes, ...] = ()
    replaces: bool = False
    cursor: bool = False

    def parent_span(self, line: bytes) -> tuple[int, int] | None:
        """First byte of the parent's JSON value in *line*, and the byte after it.

        It is the value that `parse` took the parent from: of duplicate keys the last one, as every reader of JSON
        has it, and never one in a nested object. None where nothing can be changed: no parent key, no JSON object,
        no parents in this format.
        """
        if not self.parent_keys or self.parse(line).invalid:
            return None
        return splice.span(line, self.parent_keys)

    def with_parent(self, line: bytes, parent: str | None) -> bytes:
        """*line* with another parent; every other byte stays. Unchanged where there is no parent to change."""
        span = self.parent_span(line)
        return line if span is None else splice.put(line, span, parent)


def _pi(record: RecordMeta) -> Place:
    if record.type == "session":
        return Place.HEADER
    if record.id is None:
        return Place.APART
    if record.type == "leaf":
        return Place.APART if record.target is None else Place.LEAF
    return Place.SIDE if record.side else Place.NODE


def _claude(record: RecordMeta) -> Place:
    if record.id is None:
        return Place.APART
    return Place.SIDE if record.side else Place.NODE


def _codex(record: RecordMeta) -> Place:
    if record.invalid or record.part:
        return Place.APART
    return Place.HEADER if record.type == "session_meta" else Place.NODE


def _gemini(record: RecordMeta) -> Place:
    if record.type == "$rewindTo":
        return Place.REWIND
    if record.id is None:
        return Place.APART
    return Place.HEADER if record.type == "session" else Place.NODE


def _lines(record: RecordMeta) -> Place:
    return Place.APART if record.invalid or record.part else Place.NODE


PI = Format(
    "pi", parsers.parse_pi, parsers.peek_pi, _pi,
    parents=True, parent_keys=(b"parentId",), id_keys=(b"id",), target_keys=(b"targetId",),
    replaces=True, cursor=True,
)  # fmt: skip
CLAUDE_CODE = Format(
    "claude-code", parsers.parse_claude, parsers.peek_claude, _claude,
    parents=True, parent_keys=(b"parentUuid", b"logicalParentUuid"), id_keys=(b"uuid",), replaces=True,
)  # fmt: skip
CODEX = Format("codex", parsers.parse_codex, parsers.peek_codex, _codex)
GEMINI_CLI = Format("gemini-cli", parsers.parse_gemini, parsers.peek_gemini, _gemini, replaces=True)
LINES = Format("lines", parsers.parse_line, parsers.peek_line, _lines)

FORMATS = {each.name: each for each in (PI, CLAUDE_CODE, CODEX, GEMINI_CLI, LINES)}
"""By the name that a policy gives them (`guardfs.policy.model.Format`)."""
