"""One incident in words and rows: who, what, when, what differed, and which versions it would have killed. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from guardfs.audit.incidents import Change, Incident, State, Who, culprit_lane, record_text, took
from guardfs.fence.versions import Answer
from guardfs.report.values import text

DONE = {
    "append": "appended to the transcript",
    "rewrite": "wrote over what was there",
    "truncate": "cut the transcript",
    "create": "made the transcript",
    "attributes": "changed its attributes only",
    "rename away": "renamed the transcript away",
    "rename over": "put another file in its place",
    "unlink": "removed the transcript",
    "unseen": "changed the transcript below the mount",
}

KINDS = {
    "lane": "another writer",
    "own": "the agent's own process, outside its lock",
    "metadata": "a change of attributes only",
    "drift": "the times changed below the mount, and nobody was seen",
    "unseen": "a writer below the mount, whom the guard cannot see",
}

ANSWERS: dict[Answer, str] = {
    "dies": "would die",
    "accepts": "would go on",
    "same": "would see no change",
    "unknown": "the facts do not tell",
}


class Field(NamedTuple):
    """One line of two fingerprints. change: "" where they agree."""

    name: str
    expected: str
    seen: str
    change: str


def done(found: Incident) -> str:
    """What the culprit did: ``appended to the transcript``."""
    change = found.culprit.change if found.culprit is not None else ""
    return DONE.get(change) or text(change) or "changed the transcript"


def label(found: Incident) -> str:
    """Who did what, for the picture."""
    return f"{text(culprit_lane(found))}: {done(found)}"


def sentence(found: Incident) -> str:
    """The story in one sentence."""
    who, owner = text(culprit_lane(found)) or "somebody", text(found.owner) or "the owner"
    if found.culprit is None:
        lead = f"Nobody was seen to change the transcript after {owner} had looked"
        when = f"{_took(found.after_ms + found.before_ms)} later it was not as it had been left"
    else:
        lead = f"{who} {done(found)} {_took(found.after_ms)} after {owner} had looked"
        when = f"{_took(found.before_ms)} later {owner} found it changed"
    end = (
        "and gave the turn up"
        if found.outcome != "saved"
        else "or would have: the guard kept it from seeing that"
    )
    return f"{lead}; {when}, {end}."


Rows = list[tuple[str, str]]
"""Names and values."""


def culprit_rows(found: Incident, culprit: Who | None, did: str, seq: int) -> Rows:
    """What is known of the culprit and its change. did: what it did; seq: the number of that event, 0 if unknown."""
    rows = [("kind", KINDS.get(found.kind) or text(found.kind))]
    change = found.culprit
    rows.append(("who", culprit.name if culprit is not None else text(culprit_lane(found))))
    if culprit is not None:
        rows += _process(culprit)
    if change is not None:
        rows.append(("at", _when(change.time)))
        rows.append(("did", did or change.text()))
        if remarks := _remarks(change):
            rows.append(("", remarks))
        rows.append(("event", f"seq {seq} of the log" if seq else ""))
        if len(change.records) > 1:
            rows.append(("records", ", ".join(map(record_text, change.records))))
    if found.count > 1:
        others = [each for each in found.changes if each != change]
        rows.append(("other changes", f"{found.count - 1:,}: " + ", ".join(map(_change, others[:8]))))
    return [(name, value) for name, value in rows if value]


def owner_rows(found: Incident, owner: Who) -> Rows:
    """What is known of the owner, its fence and its check."""
    rows = [("who", owner.name), *_process(owner)]
    rows.append(("looked at", _when(found.baseline_time)))
    rows.append(("died at" if found.outcome != "saved" else "checked at", _when(found.time)))
    rows.append(("fence", f"token {found.token}, opened {_when(found.opened)}"))
    rows.append(("event", f"seq {found.seq} of the log"))
    return [(name, value) for name, value in rows if value]


def compare(expected: State | None, seen: State | None) -> list[Field]:
    """The two fingerprints line by line; None: no file."""
    if expected is None and seen is None:
        return []
    rows = []
    for key, name in (
        ("dev", "device"),
        ("ino", "inode"),
        ("size", "size"),
        ("mtime_ns", "mtime"),
        ("ctime_ns", "ctime"),
    ):
        left, right = (None if state is None else int(getattr(state, key)) for state in (expected, seen))
        rows.append(Field(name, _shown(key, left), _shown(key, right), _difference(key, left, right)))
    return rows


def versions(found: Incident) -> list[tuple[str, Answer, str]]:
    """What the fence rule of each OpenClaw version says of it: versions, answer, the rule."""
    return [(rule.name, answer, rule.says) for rule, answer in found.versions()]


def _difference(key: str, left: int | None, right: int | None) -> str:
    if left == right:
        return ""
    if left is None or right is None:
        return "appeared" if left is None else "gone"
    if key == "size":
        return f"{right - left:+,} bytes"
    return f"{(right - left) / 1e9:+,.3f} s" if key.endswith("_ns") else "differs"


def _shown(key: str, value: int | None) -> str:
    if value is None:
        return "no file"
    if key.endswith("_ns"):
        second, rest = divmod(value, 1_000_000_000)
        try:
            return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d}"
        except (ValueError, OverflowError, OSError):
            return f"{second}.{rest:09d}"
    return f"{value:,} bytes" if key == "size" else str(value)


def _process(who: Who) -> list[tuple[str, str]]:
    """Program and family; of the arguments only the script of an interpreter (`Who.command`): any other may hold
    the text of a message."""
    rows = [("program", who.command)] if who.command else []
    if who.parents:
        rows.append(("started by", " ← ".join(who.parents[:6])))
    if who.container:
        rows.append(("container", who.container))
    return rows


def _remarks(change: Change) -> str:
    said = {
        "own": "by the owner's own process",
        "continues": "goes on from the owner's last record",
        "locked": "under the lock file",
    }
    return ", ".join(words for key, words in said.items() if getattr(change, key))


def _change(change: Change) -> str:
    by = change.by.lane if change.by is not None else ""
    return f"{change.change} by {by or 'somebody below the mount'}"


def _took(ms: float) -> str:
    return took(min(ms, 1e15))  # a damaged log may say anything, and infinity has no minutes


def _when(time: str) -> str:
    """UTC, as events have it, for people."""
    return time.replace("T", " ").removesuffix("Z") + " UTC" if time else ""
