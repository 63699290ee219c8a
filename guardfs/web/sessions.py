"""The sessions of one guard as the live page lists them: who owns the transcript, since when, what waits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from guardfs.report.pictures import Picture
from guardfs.report.values import micros, number, text

MAX_OPEN = 50
"""Open fences, and as many branches, that are remembered of one session."""


class Owner(msgspec.Struct):
    """An open fence. lane: its owner; since: us since the epoch."""

    lane: str
    token: int
    since: int
    tgid: int = 0


class Pending(msgspec.Struct):
    """A branch that waits. path: of its transcript; since: us since the epoch; size: bytes; error: why its rebase
    failed."""

    lane: str
    path: str
    since: int
    size: int = 0
    error: str = ""


class Session:
    """One session: the transcripts that bear its name. stamp: of its last change."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stamp = 0
        self.pictures: dict[str, Picture] = {}
        self.owners: dict[tuple[str, int], Owner] = {}
        self.pending: dict[int, Pending] = {}

    def take(self, event: Mapping[str, Any], picture: Picture, time: int) -> None:
        """Takes in an event about one of its transcripts."""
        op, change = event.get("op"), event.get("change")
        if op == "fence":
            self._fence(event, picture.path, time)
        elif op == "branch" and change == "begun":
            pending = Pending(text(event.get("lane")) or "?", picture.path, time)
            self.waits(number(event.get("branch")), pending)
        elif (op == "branch" and change == "failed") or (op == "recovered" and "error" in event):
            found = self._branch(event, picture.path, time)
            found.error = text(event.get("error")) or "for an unknown reason"
        elif op == "recovered" or (op == "branch" and change in ("rebased", "dropped")):
            self._branch(event, picture.path, time)
            self.pending.pop(number(event.get("branch")), None)
        elif event.get("verdict") in ("stage", "wait") and number(event.get("branch")):
            found = self._branch(event, picture.path, time)
            found.size += max(0, number(event.get("bytes"))) if op == "write" else 0

    def owned(self, path: str, owner: Owner) -> None:
        """Notes an open fence."""
        if len(self.owners) < MAX_OPEN:
            self.owners.setdefault((path, owner.token), owner)

    def waits(self, branch: int, pending: Pending) -> None:
        """Notes a branch."""
        if len(self.pending) < MAX_OPEN:
            self.pending.setdefault(branch, pending)

    def correct(self, fences: set[tuple[str, int]], branches: set[int], before: int) -> bool:
        """Forgets what is older than *before* and not among those that there are; whether anything was."""
        owners = [key for key, each in self.owners.items() if key not in fences and each.since < before]
        pending = [key for key, each in self.pending.items() if key not in branches and each.since < before]
        for fence in owners:
            del self.owners[fence]
        for branch in pending:
            del self.pending[branch]
        return bool(owners or pending)

    def row(self) -> dict[str, Any]:
        """What the list shows of it, JSON-able. last, since: us since the epoch. owner, branch: the oldest; more: how
        many there are besides."""
        pictures = self.pictures.values()
        row: dict[str, Any] = {
            "name": self.name,
            "files": len(pictures),
            "lanes": len({lane for each in pictures for lane in each.lanes}),
            "last": max((each.last for each in pictures), default=0),
            "events": sum(each.events for each in pictures),
            "lost": sum(each.lost for each in pictures),
            "saved": sum(each.saved for each in pictures),
        }
        if self.owners:
            owner = min(self.owners.values(), key=lambda each: each.since)
            row["owner"] = {**msgspec.structs.asdict(owner), "more": len(self.owners) - 1}
        if self.pending:
            oldest = min(self.pending.values(), key=lambda each: each.since)
            error = next((each.error for each in self.pending.values() if each.error), "")
            size = sum(each.size for each in self.pending.values())
            more = len(self.pending) - 1
            row["branch"] = {
                "lane": oldest.lane,
                "since": oldest.since,
                "size": size,
                "error": error,
                "more": more,
            }
        return row

    def _fence(self, event: Mapping[str, Any], path: str, time: int) -> None:
        token = number(event.get("token"))
        if event.get("change") == "closed":
            self.owners.pop((path, token), None)
            return
        opened, process = micros(event.get("opened")), event.get("process")
        tgid = number(process.get("tgid")) if isinstance(process, dict) else 0
        lane = text(event.get("owner")) or "?"
        self.owned(path, Owner(lane, token, time if opened is None else opened, tgid))

    def _branch(self, event: Mapping[str, Any], path: str, time: int) -> Pending:
        """The branch that an event names. One that becomes a replacement gets another number, and no notice of it."""
        branch, lane = number(event.get("branch")), text(event.get("lane")) or "?"
        if branch not in self.pending:
            same = [key for key, each in self.pending.items() if (each.lane, each.path) == (lane, path)]
            self.waits(branch, self.pending.pop(same[-1]) if same else Pending(lane, path, time))
        return self.pending.get(branch) or Pending(lane, path, time)
