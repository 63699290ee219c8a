"""Reads an audit log and says who wrote what: what a program of your own would start from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
CHANGES = {"create", "write", "truncate", "attributes", "rename", "link", "symlink", "unlink", "xattr"}


def events(path: str) -> Iterator[Event]:
    """Every event of one log file, oldest first."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


@dataclass
class Share:
    """What one thread of one process put into one transcript. size: bytes.

    Short-lived processes with the same command are one share; others: how many besides *pid*.
    """

    lane: str
    pid: int
    tid: int
    main: bool
    command: str
    records: int = 0
    size: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    others: int = 0


def is_transcript(path: str) -> bool:
    return path.endswith(".jsonl") and not path.endswith(".trajectory.jsonl")


def shares(log: Iterable[Event]) -> dict[str, list[Share]]:
    """By transcript, the shares of everybody who changed it, in the order of their first change."""
    found: dict[str, dict[tuple[int, int], Share]] = {}
    commands: dict[int, str] = {}
    for event in log:
        if event["op"] == "process":
            commands[event["tgid"]] = " ".join(event["args"])
        elif event["op"] in CHANGES and not event["errno"] and is_transcript(event["path"]):
            count(event, found.setdefault(event["path"], {}), commands)
    return {path: unique(by_thread.values()) for path, by_thread in found.items()}


def count(event: Event, by_thread: dict[tuple[int, int], Share], commands: dict[int, str]) -> None:
    """Add one change to the share of the thread that made it."""
    writer = event["writer"]
    key = writer["tgid"], writer["tid"]
    share = by_thread.get(key)
    if share is None:
        command = commands.get(writer["tgid"], writer["comm"])
        alike = (
            s
            for s in by_thread.values()
            if (s.lane, s.command) == (event["lane"], command) and s.pid != key[0]
        )
        share = next(alike, None) or Share(event["lane"], *key, writer["main"], command)
        share.others += share.pid != key[0]
        by_thread[key] = share
    if event["op"] == "write":
        share.records += 1 if "record" in event else len(event.get("records", ()))
        share.size += event["bytes"]
    else:
        share.changes[event["op"]] = share.changes.get(event["op"], 0) + 1


def unique(shares: Iterable[Share]) -> list[Share]:
    return list({id(share): share for share in shares}.values())


def parents(log: Iterable[Event]) -> dict[int, str]:
    """By process id, who started it: name and id."""
    found = {}
    for event in log:
        if event["op"] == "process" and event.get("parents"):
            parent = event["parents"][0]
            found[event["tgid"]] = f"{parent['comm']} {parent['pid']}"
    return found


def culprits(log: Iterable[Event], path: str, since: str, until: str, owner: int) -> list[Event]:
    """The changes of *path* in [since, until] (the log's own time format) by any process but *owner*."""
    return [
        event
        for event in log
        if event["op"] in CHANGES
        and path in (event.get("path"), event.get("to"))
        and since <= event["time"] <= until
        and event["writer"]["tgid"] != owner
        and not event.get("errno")
    ]
