"""What an event adds to the pictures, for the report and for the live page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardfs.audit.incidents import Forgotten, Incident
from guardfs.report.pictures import UNSEEN, Blame, Picture, Pictures
from guardfs.report.story import label
from guardfs.report.values import mapping, micros, text


def draw(pictures: Pictures, picture: Picture, event: Mapping[str, Any], time: int) -> None:
    """Adds an event that is no incident. time: the event's, us since the epoch."""
    op = event.get("op")
    if isinstance(event.get("writer"), dict):
        pictures.operation(picture, event, time)
    elif op == "unseen":
        pictures.unseen(picture, event, time)
    elif op == "fence":
        pictures.fence(picture, event, time)
    elif op == "branch" and event.get("change") == "rebased" and event.get("result") != "conflict":
        pictures.rebased(picture, event, time)
    elif (said := _said(event)) is not None:
        pictures.note(picture, time, said)


def _said(event: Mapping[str, Any]) -> str | None:
    """The words of what is shown as a note; None for what is not shown."""
    op, change, lane = event.get("op"), text(event.get("change")), text(event.get("lane")) or "?"
    if op == "stale":
        return "stale: an owner came back after its fence was closed"
    if op == "lock":
        held = text(mapping(event.get("holder")).get("lane")) or "?"
        by = text(mapping(event.get("by")).get("lane"))
        return f"lock {change}: held by {held}" + (f", taken by {by}" if by else "")
    if op == "branch" and change == "rebased":
        return f"conflict: what {lane} staged could not be merged, and is kept beside the transcript"
    if op == "branch" and change == "failed":
        return f"not rebased yet, what {lane} staged: {text(event.get('error')) or 'for an unknown reason'}"
    if op == "unstaged":
        return f"not staged, went through: {text(event.get('operation'))}: {text(event.get('error'))}"
    return None


def blame(found: Incident, number: int, time: int) -> Blame:
    """An incident as a picture needs it. number: its own, for the reader."""
    when = None
    if found.culprit is not None and (at := micros(found.culprit.time)) is not None:
        by = text(found.culprit.by.lane) or "?" if found.culprit.by is not None else UNSEEN
        when = (at, by, text(found.culprit.change))
    return Blame(number, time, text(found.owner) or "?", found.outcome != "saved", label(found), when)


def forgotten(found: Forgotten) -> str:
    """The words of a note."""
    lanes = {change.by.lane if change.by else "" for change in found.changes}
    who = ", ".join(sorted(text(lane) or "somebody" for lane in lanes)) or "somebody"
    return f"forgotten: the owner went on without what {who} wrote"
