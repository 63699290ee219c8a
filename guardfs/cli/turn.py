"""The story of a turn that died, for people. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from guardfs.audit.incidents import (
    Change,
    Forgotten,
    Incident,
    State,
    Who,
    culprit_lane,
    lasted_ms,
    record_text,
    took,
)
from guardfs.audit.match import Death
from guardfs.audit.show import CYAN, DIM, GREEN, RED, YELLOW, safe, short
from guardfs.cli.clock import clock, day_clock
from guardfs.fence.versions import NOT_FENCED, Answer

WIDTH = 100
"""Columns of a paragraph: wider lines are hard to read."""

_COLOURS: dict[Answer, str] = {"same": GREEN, "accepts": GREEN, "dies": RED, "unknown": YELLOW}
_ANSWERS: dict[Answer, str] = {"same": "lives", "accepts": "lives", "dies": "dies", "unknown": "unknown"}

_MEANING = {
    "lane": "Another program wrote while the reply was under way. Waiting for the lock file would not have helped "
    "it: the gateway lets go of the lock while the model answers.",
    "lane within": "It was another line of work of the same process, which knows nothing of the turn.",
    "own": "It was the owner's own process, outside its own lock: no other program is to blame.",
    "metadata": "Not one byte of the transcript changed. Its times did, and that is enough.",
    "drift": "Nobody that the guard saw touched it, and only its times changed. Some file systems do that by "
    "themselves (Btrfs, SMB, NFS); or somebody did it below the mount.",
    "unseen": "The change did not come through the mount, so nobody saw the writer: another container, the host, a "
    "sync tool on the directory below.",
}

_DID = {
    "append": "appended to it",
    "create": "created it",
    "rewrite": "wrote into the middle of it",
    "truncate": "shortened it",
    "attributes": "changed its attributes",
    "rename away": "renamed it away",
    "rename over": "put another file in its place",
    "unlink": "removed it",
    "unseen": "changed it",
}


class TurnStory:
    """Puts the story together. colour: with ANSI colours."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def text(self, death: Death, notes: Sequence[str] = ()) -> str:
        """Several lines. notes: what the reader should know before."""
        found = death.incident
        what = "a turn died" if found.outcome == "lost" else "a turn was saved"
        where = f"session:{found.session}" if ":" in found.session else found.session
        lines = [self._paint(f"{day_clock(found.time)}  {what}: {safe(where)}", CYAN)]
        lines += [self._paint(line, YELLOW) for note in notes for line in _wrapped(note, "note: ")]
        lines += ["", *_wrapped(self.words(death)), *_wrapped(_meaning(death)), ""]
        lines += [f"  {name:<10}{text}" for name, text in self._facts(death)]
        lines += ["", "Would this have killed the turn under another OpenClaw?", *self._versions(found)]
        return "\n".join(lines) + "\n"

    def words(self, death: Death) -> str:
        """What happened, in sentences."""
        found, change = death.incident, death.incident.culprit
        owner = safe(found.owner)
        text = f"{owner}{_which(death.owner)} relied on {short(found.path)} from {clock(found.opened)} on"
        text += " while the model answered" if found.expected is not None else ", which was not there yet"
        if change is None:
            return f"{text}. When it came back, it found {found.difference()}, and ended the turn."
        who = death.culprit
        same = who is not None and (who.tgid, who.start) == (found.process.tgid, found.process.start)
        name = "somebody below the mount" if who is None else who.name
        name += " (the same process)" if same else _which(who)
        did = f"{_DID.get(change.change, 'changed it')} ({death.did})"
        did += f", the first of {found.count} changes" if found.count > 1 else ""
        text += f". {took(found.after_ms)} after it had last looked, {name} {did}. "
        text += f"{took(found.before_ms)} later {owner} came back, found {found.difference()}, "
        return text + (
            "and ended the turn: the reply was lost." if found.outcome == "lost" else "and went on."
        )

    def forgotten(self, found: Forgotten, by: Sequence[Who]) -> str:
        """The same of records that nobody continues from. by: who wrote them."""
        records = [record_text(record) for change in found.changes for record in change.records]
        names = ", ".join(f"{who.name}{_which(who)}" for who in by) or "somebody that was not seen"
        where = f"session:{found.session}" if ":" in found.session else found.session
        text = f"While {safe(found.owner)} relied on {short(found.path)}, {names} appended to it: "
        text += f"{', '.join(records)}. It accepted that, and went on from its own last record: what was appended is "
        text += "on a dead branch, and the agent does not remember it."
        title = f"{day_clock(found.time)}  no turn died, but records were forgotten: {safe(where)}"
        return (
            "\n".join([self._paint(title, CYAN), "", *_wrapped(text), "", f"  event     #{found.seq}"]) + "\n"
        )

    def _facts(self, death: Death) -> Iterator[tuple[str, str]]:
        found = death.incident
        lasted = lasted_ms(found)
        after = "" if lasted is None else f", {took(lasted)} before the check that failed"
        yield "fence", safe(f"token {found.token} of {found.owner}, opened {day_clock(found.opened)}{after}")
        yield "expected", self._state(found.expected, found.seen)
        yield "found", self._state(found.seen, found.expected)
        yield "culprit", self._culprit(death)
        for change in found.changes if found.count > 1 else ():
            by = culprit_name(change)
            yield (
                "change",
                safe(f"{clock(change.time)}  {by}  {change.text()}") + (" (own)" if change.own else ""),
            )
        hidden = found.count - len(found.changes)
        if hidden > 0:
            yield "", f"and {hidden} more"
        yield "event", f"#{found.seq}" + (f"; the change itself: #{death.seq}" if death.seq else "")

    def _culprit(self, death: Death) -> str:
        who = death.culprit
        if who is None:
            return self._paint(culprit_lane(death.incident), RED)
        parts = [self._paint(who.name, RED)]
        parts += [who.command] if who.command else []
        parts += [f"started by {safe(' < '.join(who.parents[:4]))}"] if who.parents else []
        parts += [f"in the container {safe(who.container[:12])}"] if who.container else []
        return ", ".join(parts)

    def _state(self, state: State | None, other: State | None) -> str:
        if state is None:
            return self._paint("no file", "" if other is None else YELLOW)
        shown = []
        for name, key in (
            ("device", "dev"),
            ("inode", "ino"),
            ("size", "size"),
            ("mtime", "mtime_ns"),
            ("ctime", "ctime_ns"),
        ):
            value = getattr(state, key)
            text = f"{value:,} bytes" if key == "size" else f"{name} {value}"
            if key.endswith("_ns"):
                text = f"{name} {value // 10**9}.{value % 10**9:09d}"
            differs = other is not None and getattr(other, key) != value
            shown.append(self._paint(text, YELLOW if differs else DIM))
        return ", ".join(shown)

    def _versions(self, found: Incident) -> Iterator[str]:
        for rule, answer in found.versions():
            yield self._version(rule.name, _ANSWERS[answer], _COLOURS[answer], rule.says)
        yield self._version("2026.8.1 on", "lives", GREEN, NOT_FENCED)

    def _version(self, name: str, answer: str, colour: str, says: str) -> str:
        lead = f"  {name:<16}{self._paint(f'{answer:<9}', colour)}"
        first, *rest = textwrap.wrap(says, WIDTH - 27)
        return "\n".join(
            [lead + self._paint(first, DIM), *(" " * 27 + self._paint(line, DIM) for line in rest)]
        )

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text


def culprit_name(change: Change) -> str:
    """The lane and thread behind one change."""
    by = change.by
    return "below the mount" if by is None else safe(f"{by.lane}[{by.tid}{'' if by.main else '+'}]")


def _which(who: Who | None) -> str:
    """What is known of a process beyond its name, in brackets."""
    if who is None:
        return ""
    parts = [f"process {who.tgid}"] if who.tgid else []
    parts += [who.command] if who.command else []
    parts += [f"started by {safe(who.parents[0])}"] if who.parents else []
    return f" ({', '.join(parts)})" if parts else ""


def _meaning(death: Death) -> str:
    found = death.incident
    by = found.culprit.by if found.culprit is not None else None
    same = by is not None and (by.tgid, by.start) == (found.process.tgid, found.process.start)
    return _MEANING.get("lane within" if found.kind == "lane" and same else found.kind, "")


def _wrapped(text: str, lead: str = "") -> list[str]:
    return textwrap.wrap(lead + text, WIDTH, subsequent_indent=" " * len(lead), break_on_hyphens=False)
