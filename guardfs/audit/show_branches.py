"""What the log says of branches and modes, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardfs.audit.words import short, where_of

_RESULTS = {
    "appended": "appended",
    "replaced": "replaced the transcript",
    "made": "became the transcript",
    "done": "was there already",
}


def is_bad(event: Mapping[str, Any]) -> bool:
    """Whether somebody should look at it."""
    failed = event.get("change") in ("failed", "given up") or "error" in event
    return failed or event.get("result") == "conflict"


def of_branches(op: str, event: Mapping[str, Any]) -> str:
    """The words of a notice `branch`, `ghost`, `unstaged`, `recovered` or `mode`; any keys of it may be missing."""
    if op == "mode":
        return _mode(event)
    where = where_of(event)
    if op == "unstaged":
        what, why = event.get("operation"), event.get("error")
        return f"{where}: the {what} was not staged and went through: {why}"
    if op == "ghost":
        if event.get("change") == "failed":
            return f"{where}: what its owner wrote to {short(str(event.get('file')))} waits still: {event.get('error')}"
        carried = event.get("carried")
        more = f"; {carried} B of its owner's go into the new file" if carried else ""
        return f"{where}: its owner lets go of {short(str(event.get('file')))}{more}"
    if op == "recovered":
        if "error" in event:
            return f"{where}: what {event.get('lane')} wrote before the restart waits still: {event['error']}"
        return f"{where}: what {event.get('lane')} wrote before the restart {_result(event)}"
    return _branch(where, event)


def _branch(where: str, event: Mapping[str, Any]) -> str:
    change, named = event.get("change"), f"branch {event.get('branch')} of {event.get('lane')}"
    if change == "given up":
        return f"{where} is only recorded from now on: {event.get('errors')} internal errors"
    if change == "begun":
        base = event.get("base")
        return f"{named} begins on {where}, " + ("which does not exist" if base is None else f"at {base} B")
    if change == "failed":
        return f"{named} cannot go into {where} yet: {event.get('error')}"
    if change == "dropped":
        return f"{named} on {where} held nothing"
    return f"{named} on {where} {_result(event)}"


def _result(event: Mapping[str, Any]) -> str:
    result = event.get("result")
    if result == "conflict":
        return f"cannot be merged: it is kept as {short(str(event.get('file')))}"
    text = _RESULTS.get(str(result), str(result))
    size, records = event.get("bytes"), event.get("records")
    counts = (
        [f"{records} record{'' if records == 1 else 's'}"] if isinstance(records, int) and records else []
    )
    counts += [f"{size} B"] if isinstance(size, int) and size else []
    counts += [f"{event[key]} {word}" for key, word in (("unparsed", "not parsed"),) if event.get(key)]
    return f"{text}: {', '.join(counts)}" if counts else text


def _mode(event: Mapping[str, Any]) -> str:
    text = f"{event.get('mode')}, was {event.get('before')}"
    by = event.get("by")
    if isinstance(by, dict):
        return f"{text}: set by {by.get('comm')}[{by.get('tgid')}], user {event.get('uid')}"
    return f"{text}: as the policy says"
