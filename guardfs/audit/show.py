"""One line an event for people: when, who, what, where, how much, result. Pure but for the time zone.

Plain ANSI colours, so that a thousand events a second scroll by. Whatever comes from file names and processes
is shown with control characters escaped: a log must not be able to paint on the terminal of its reader.
"""

from __future__ import annotations

import errno as errnos
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from guardfs.audit.levels import CHANGES
from guardfs.audit.show_branches import is_bad, of_branches
from guardfs.audit.words import safe, short, where_of

__all__ = ["CYAN", "DIM", "GREEN", "OP", "RED", "WHO", "YELLOW", "Cells", "Shower", "cells", "safe", "short"]

RED, YELLOW, GREEN, CYAN, DIM = "31", "33", "32", "36", "2"

WHO = 26
OP = 10
"""Columns of the writer and of the operation; longer ones push the rest to the right rather than being
cut."""


class Shower:
    """Formats the events of one log, in order: it remembers who usually changes each transcript.

    colour: with ANSI colours. width: columns of the terminal, to which lines are cut; None: not cut.
    """

    def __init__(self, *, colour: bool = False, width: int | None = None) -> None:
        self._colour = colour
        self._width = width
        self._changes: dict[str, Counter[int]] = {}
        self._minute = ""
        self._minute_text = ""

    def line(self, event: Mapping[str, Any]) -> str:
        """The line of *event*, without newline. Never raises, whatever the event holds."""
        op = str(event.get("op", "?"))
        writer = event.get("writer")
        if not isinstance(writer, dict):
            colour = _notice_colour(op, event)
            who = (f"{'guardfs':<{WHO}}", CYAN)
            what = ((f"{op:<{OP}}", colour), (_notice(op, event), colour))
            return self._fit([(self._clock(event), DIM), who, *what])
        failed = bool(event.get("errno"))
        change = op in CHANGES
        unusual = change and not failed and self._unusual(event, writer)
        staged = event.get("verdict") in ("stage", "wait")
        colour = RED if failed else YELLOW if unusual or staged else "" if change else DIM
        result = _result(event)
        parts = [
            (self._clock(event), DIM),
            (f"{_who(event, writer):<{WHO}}", YELLOW if unusual else CYAN),
            (f"{op:<{OP}}", colour),
            (_where(event), colour),
            (_key(event), DIM),
            (_much(event), DIM),
            (_records(event), GREEN),
            ("other writer" if unusual else "", YELLOW),
            (result, RED if failed else YELLOW if staged else DIM),
        ]
        return self._fit(parts)

    def _unusual(self, event: Mapping[str, Any], writer: Mapping[str, Any]) -> bool:
        """Whether a process changes a transcript that another one has changed more often."""
        session, tgid = event.get("session"), writer.get("tgid")
        if not isinstance(session, str) or not isinstance(tgid, int):
            return False
        if str(event.get("path", "")).endswith(".lock"):
            return False
        if len(self._changes) > 10_000:
            self._changes.clear()
        seen = self._changes.setdefault(session, Counter())
        usual = seen.most_common(1)
        seen[tgid] += 1
        return bool(usual) and usual[0][0] != tgid and seen[tgid] <= usual[0][1]

    def _clock(self, event: Mapping[str, Any]) -> str:
        """Local time to the millisecond."""
        time = event.get("time")
        if not isinstance(time, str) or len(time) < 23:
            return "--:--:--.---"
        if time[:16] != self._minute:  # the zone's rules are asked once a minute of the log
            try:
                local = datetime.fromisoformat(time[:16] + "+00:00").astimezone()
            except (ValueError, OverflowError, OSError):
                return safe(time[11:23])
            self._minute, self._minute_text = time[:16], f"{local:%H:%M}"
        return self._minute_text + safe(time[16:23])

    def _fit(self, parts: list[tuple[str, str]]) -> str:
        left = self._width if self._width is not None else 1 << 30
        out: list[str] = []
        for text, colour in parts:
            if not text:
                continue
            if out:
                out.append(" ")
                left -= 1
            if left <= 0:
                break
            if len(text) > left:
                text = text[: left - 1] + "…"
            left -= len(text)
            out.append(f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text)
        return "".join(out).rstrip()


class Cells(NamedTuple):
    """What is said of one event, for pages. who: the writer, with its lane. what: of what was written, or all that a
    notice says. result: verdict or error. tone: "bad", "held", "saved", "quiet" or ""."""

    op: str
    who: str = ""
    where: str = ""
    key: str = ""
    what: str = ""
    result: str = ""
    tone: str = ""


_TONES = {RED: "bad", YELLOW: "held", GREEN: "saved", DIM: "quiet"}


def cells(event: Mapping[str, Any]) -> Cells:
    """The parts of *event*'s line. Never raises, whatever the event holds."""
    op, writer = str(event.get("op", "?")), event.get("writer")
    if not isinstance(writer, dict):
        tone = _TONES.get(_notice_colour(op, event), "")
        where = where_of(event) if "path" in event else ""
        what = _told(op, event)
        if where:  # which stands beside it
            for said in (f" in {where}", f" on {where}", where):
                what = what.replace(said, "", 1)
            what = " ".join(what.split()).removeprefix(": ")
        return Cells(safe(op), where=_where(event) if where else "", what=what, tone=tone)
    staged = event.get("verdict") in ("stage", "wait")
    change = op in CHANGES and not str(event.get("path", "")).endswith(".lock")
    tone = "bad" if event.get("errno") else "held" if staged else "" if change else "quiet"
    what = " ".join(filter(None, (_much(event), _records(event))))
    return Cells(safe(op), _who(event, writer), _where(event), _key(event), what, _result(event), tone)


def _told(op: str, event: Mapping[str, Any]) -> str:
    """A notice without what a process was called with, which may hold the text of a message."""
    if op == "process":
        return safe(f"{event.get('tgid', '?')}: {event.get('exe') or '?'}")
    if op == "torn":
        return safe(f"{event.get('lost_bytes', '?')} bytes of an unfinished line")
    return _notice(op, event)


def _who(event: Mapping[str, Any], writer: Mapping[str, Any]) -> str:
    comm, lane = str(writer.get("comm") or ""), str(event.get("lane") or "")
    known = writer.get("known")
    if isinstance(known, str) and known in ("outside", "exited"):
        comm = known
    name = lane if lane == comm or not comm else f"{lane}/{comm}" if lane else comm
    mark = "" if writer.get("main") else "+"  # a pool thread, not the process's first
    return safe(f"{name or '?'}[{writer.get('tid', '?')}{mark}]")


def _where(event: Mapping[str, Any]) -> str:
    path = short(str(event.get("path", "")))
    to = event.get("to")
    return f"{path} -> {short(to)}" if isinstance(to, str) else path


def _key(event: Mapping[str, Any]) -> str:
    """The session's key, as the gateway's own log writes it; nothing where only the transcript's name is known."""
    session = event.get("session")
    return safe(f"session:{session}") if isinstance(session, str) and ":" in session else ""


def _much(event: Mapping[str, Any]) -> str:
    parts = []
    count, size, offset = event.get("count"), event.get("bytes"), event.get("offset")
    if isinstance(size, int):
        parts.append(f"{'+' if event.get('append') else ''}{size} B")
    if isinstance(offset, int) and not event.get("append"):
        parts.append(f"at {offset}")
    if isinstance(count, int):
        parts.append(f"in {count} writes")
    return " ".join(parts)


def _records(event: Mapping[str, Any]) -> str:
    record, records = event.get("record"), event.get("records")
    if isinstance(record, dict):
        return _record(record)
    if isinstance(records, list) and records:
        first = _record(records[0]) if isinstance(records[0], dict) else ""
        return f"{len(records)} records: {first}, …"
    return ""


def _record(record: Mapping[str, Any]) -> str:
    if record.get("part"):
        return "part of a record"
    if record.get("invalid"):
        return "not a record"
    names = [record.get(key) for key in ("type", "role")]
    model = record.get("model")
    if record.get("provider") == "openclaw":  # the gateway's own out-of-band appends
        names.append(model)
    text = "/".join(str(name) for name in names if name)
    if record.get("id"):
        text += " " + str(record["id"])[:8]
    return safe(text)


def _result(event: Mapping[str, Any]) -> str:
    number, verdict = event.get("errno"), event.get("verdict")
    if isinstance(number, int) and number:
        name = errnos.errorcode.get(number, f"errno {number}")
        return safe(f"denied {name}: {event.get('rule')}") if verdict == "deny" else name
    if verdict == "stage":
        branch = event.get("branch")
        return f"staged on branch {branch}" if isinstance(branch, int) else "staged"
    if isinstance(verdict, str) and verdict != "allow":
        return safe(verdict)
    if isinstance(event.get("would"), str):
        return safe(f"would {event['would']}: {event.get('rule')}")
    took = event.get("us")
    return f"{took / 1000:.0f} ms" if isinstance(took, int) and took >= 10_000 else ""


def _notice(op: str, event: Mapping[str, Any]) -> str:
    if op == "process":
        args = event.get("args")
        line = " ".join(map(str, args)) if isinstance(args, list) else ""
        return safe(f"{event.get('tgid', '?')}: {line or event.get('exe') or '?'}")
    if op == "gap" and isinstance(event.get("count"), int):
        lost = f"{event['count']} events lost" if event["count"] else "no event lost"
        return safe(f"{lost}, {event.get('from')} to {event.get('to')}: {event.get('error')}")
    if op in ("fence", "incident", "forgotten", "stale", "lock"):
        return safe(_of_fence(op, event))
    if op in ("branch", "ghost", "unstaged", "recovered", "mode"):
        return safe(of_branches(op, event))
    if op == "takeover":
        how = "mounted anew" if event.get("anew") else "taken over"
        missing = event.get("lost")
        more = f"; without: {', '.join(map(str, missing))}" if isinstance(missing, list) and missing else ""
        return safe(f"{how} by {event.get('pid')} in {event.get('took_ms')} ms: {event.get('cause')}{more}")
    if op == "unguarded":
        return safe(f"{event.get('deaths')} daemons died, the last one of {event.get('cause')}: unguarded")
    skip = ("v", "seq", "prev", "time", "op", "head")
    return safe(" ".join(f"{key}={value}" for key, value in event.items() if key not in skip))


def _of_fence(op: str, event: Mapping[str, Any]) -> str:
    """A notice about a fence, for people."""
    where = where_of(event)
    owner = f"{event.get('owner')}, token {event.get('token')}"
    if op == "fence":
        why = event.get("reason")
        return f"{event.get('change')} {where} {owner}" + (f": {why}" if why not in (None, "closed") else "")
    if op == "incident":
        culprit = event.get("culprit")
        what = "was saved" if event.get("outcome") == "saved" else "died"
        return f"a turn of {owner} {what} in {where}: {_by(culprit if isinstance(culprit, dict) else None)}"
    if op == "forgotten":
        changes = event.get("changes")
        last = (
            changes[-1] if isinstance(changes, list) and changes and isinstance(changes[-1], dict) else None
        )
        return f"{owner} goes on in {where} without what others wrote: {_by(last)}"
    if op == "stale":
        return f"{owner} came back to {where} after its fence was closed"
    holder = event.get("holder")
    held = holder.get("lane") if isinstance(holder, dict) else None
    return f"{event.get('change')} {where} held by {held}"


def _by(change: Mapping[str, Any] | None) -> str:
    if change is None:
        return "by nobody that the guard saw"
    by = change.get("by")
    who = f"{by.get('lane')}[{by.get('tid')}]" if isinstance(by, dict) else "somebody below the mount"
    return f"{change.get('change')} by {who}"


def _notice_colour(op: str, event: Mapping[str, Any]) -> str:
    if op == "policy":
        return CYAN
    if op == "incident" and event.get("outcome") == "saved":
        return GREEN
    if op in ("branch", "ghost", "recovered"):
        return RED if is_bad(event) else DIM
    if op in ("gap", "torn", "error", "incident", "unstaged", "unguarded"):
        return RED
    return DIM if op in ("process", "log", "fence") else YELLOW
