"""A recorded trace of a real gateway, as a policy would be asked about each of its operations.

The traces (`tests/traces/README.md`) are system calls of one process. What they leave out is filled in here, and
nowhere else:

* The process is not in a trace. A gateway under a guard showed as executable `node`, arguments `openclaw`, main thread
  `openclaw`, pool threads `libuv-worker`.
* The beginning of a write is recorded (some 95 to 200 bytes), often not enough for the role of a record, never for its
  provider and model. What cannot be seen is left out: no condition on it is met.
* Ids that were UUIDs are cut to eight characters and ``..`` in two of the traces. They get zeros for the rest, so that
  their form is seen; parents likewise.
* Some writes have no byte count; the length of what was recorded of them stands in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from guardfs.audit.event import Kind
from guardfs.lanes.writer import Process, Writer
from guardfs.policy.facts import Facts, operation_class
from guardfs.policy.files import Files
from guardfs.policy.model import Chain, Transcripts
from guardfs.transcript.names import NameRules
from guardfs.transcript.records import RecordMeta

TRACES = Path(__file__).parent.parent / "traces"
NAMES = ("two-turns", "inject-compact-new-reset-delete", "tool-inject-absent-new")

TGID, START = 4102, 50798
GATEWAY = Process(
    tgid=TGID,
    start=START,
    exe="/usr/local/bin/node",
    args=("openclaw",),
    parents=((1, "systemd"),),
    cgroup=None,
    container=None,
    runtime=None,
    pidns=None,
)
_OPS = {
    "create": "create", "open": "open", "read": "read", "write": "write", "close": "close", "stat": "look",
    "lstat": "look", "fstat": "look", "access": "look", "readlink": "look", "readdir": "list", "rename": "rename",
    "unlink": "unlink", "mkdir": "mkdir", "chmod": "attributes", "utimensat": "attributes",
    "ftruncate": "truncate",
}  # fmt: skip
"""System call (`create`: an open that creates) -> the audit log's name for what the guard is asked."""


class Step(NamedTuple):
    """One operation of a trace. line: in the file, from 1. raw: as recorded."""

    line: int
    raw: dict[str, Any]
    facts: Facts


def raw(name: str) -> list[dict[str, Any]]:
    """The operations of the trace *name*, as recorded."""
    with (TRACES / f"{name}.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def no_ids(kind: Literal["user", "group"], name: str) -> None:
    """For a `Decider` whose policy names no user and no group."""


def steps(name: str, transcripts: Transcripts) -> Iterator[Step]:
    """The operations of the trace *name* with the facts that a guard would have had of each.

    transcripts: which files are transcripts and locks, as the policy says.
    """
    sessions = _Sessions(transcripts)
    for line, operation in enumerate(raw(name), 1):
        yield Step(line, operation, sessions.facts(operation))


def record_of(head: str) -> RecordMeta | None:
    """The first record of a write, from what was recorded of it; None where that holds none."""
    if not head.startswith("{"):
        return None
    message = head.partition('"message":')[2]
    own = head if not message else head.partition('"message":')[0]
    return RecordMeta(
        type=_value(own, "type"),
        role=_value(message, "role"),
        id=_whole(_value(own, "id")),
        parent=_whole(_value(own, "parentId")),
    )


def _value(text: str, key: str) -> str | None:
    found = re.search(rf'"{key}":"([^"]*)"', text)
    return found[1] if found else None


def _whole(record_id: str | None) -> str | None:
    if record_id is not None and record_id.endswith(".."):
        return f"{record_id[:8]}-0000-0000-0000-000000000000"
    return record_id


class _Open:
    """An open file: whether it appends, and where its next write goes."""

    def __init__(self, append: bool) -> None:
        self.append = append
        self.offset = 0


class _Sessions:
    """The sessions directory while a trace goes on: sizes, open files, locks, leaves."""

    def __init__(self, transcripts: Transcripts) -> None:
        self.names = NameRules(transcripts)
        self.files = Files(transcripts)
        self.locked: set[bytes] = set()  # transcripts whose lock the one process holds
        self.sizes: dict[str, int] = {}
        self.leaves: dict[str, str | None] = {}
        self.opened: dict[str, list[_Open]] = {}

    def facts(self, operation: dict[str, Any]) -> Facts:
        """The facts of *operation*; afterwards it has happened."""
        path, to = operation["path"], operation.get("to")
        kind = self.names.kind(path.encode())
        transcript = (self.names.transcript_of(path.encode()) or path.encode()) if kind else b""
        record = record_of(operation.get("head") or "") if kind is Kind.TRANSCRIPT else None
        facts = Facts(
            writer=_writer(operation["thread"]),
            operation=self._class(operation),
            file=self.files.of(path.encode(), to.encode() if to else None),
            path=path.encode(),
            to=to.encode() if to else None,
            record=record,
            continues=self._continues(path, record),
            lock="own" if kind and transcript in self.locked else "free",
        )
        if not operation.get("error"):
            self._happened(operation, kind, transcript, record)
        elif operation["error"] == "ENOENT":
            self.sizes.pop(path, None)
        return facts

    def _class(self, operation: dict[str, Any]) -> Any:
        op, path = operation["op"], operation["path"]
        if op == "open":
            flags = operation["flags"]
            if "creat" in flags and path not in self.sizes:
                op = "create"
            elif "trunc" in flags:
                return operation_class("truncate")
        if op == "write":
            handle = self._handle(path)
            size = self.sizes.get(path, 0)
            return operation_class("write", append=handle.append, offset=handle.offset, size_before=size)
        onto = op == "rename" and self.names.kind(operation["to"].encode()) is Kind.TRANSCRIPT
        return operation_class(_OPS[op], onto_transcript=onto)

    def _handle(self, path: str) -> _Open:
        return self.opened[path][-1] if self.opened.get(path) else _Open(append=False)

    def _continues(self, path: str, record: RecordMeta | None) -> Chain | None:
        """Whether the record goes on from the file's last one; None where that was written before the trace."""
        if record is None or record.type == "session" or path not in self.leaves:
            return None
        return "leaf" if record.parent == self.leaves[path] else "none"

    def _happened(
        self, operation: dict[str, Any], kind: Kind, transcript: bytes, record: RecordMeta | None
    ) -> None:
        op, path = operation["op"], operation["path"]
        if op in ("stat", "lstat", "access") and path != ".":
            self.sizes[path] = operation.get("size") or self.sizes.get(path, 0)
        elif op == "open":
            self._open(operation, kind, transcript)
        elif op == "close":
            if self.opened.get(path):
                self.opened[path].pop()
        elif op == "write":
            self._write(operation, record)
        elif op == "unlink":
            self.sizes.pop(path, None)
            self.leaves.pop(path, None)
            if kind is Kind.LOCK:
                self.locked.discard(transcript)
        elif op == "rename":
            self.sizes[operation["to"]] = self.sizes.pop(path, 0)
            self.leaves.pop(path, None)

    def _open(self, operation: dict[str, Any], kind: Kind, transcript: bytes) -> None:
        path, flags = operation["path"], operation["flags"]
        creates = "creat" in flags and path not in self.sizes
        if creates and kind is Kind.LOCK:
            self.locked.add(transcript)
        if creates or "trunc" in flags:
            self.sizes[path] = 0
            self.leaves[path] = None
        self.sizes.setdefault(path, 0)
        self.opened.setdefault(path, []).append(_Open("append" in flags))

    def _write(self, operation: dict[str, Any], record: RecordMeta | None) -> None:
        path = operation["path"]
        handle = self._handle(path)
        count = operation.get("bytes") or len((operation.get("head") or "").encode())
        start = self.sizes.get(path, 0) if handle.append else handle.offset
        handle.offset = start + count
        self.sizes[path] = max(self.sizes.get(path, 0), handle.offset)
        if record is None:
            return
        if record.type != "session" and record.id is None:  # its id lies behind what was recorded of it
            self.leaves.pop(path, None)
        elif record.type != "session":
            self.leaves[path] = record.id


def _writer(thread: str) -> Writer:
    main = thread == "main"
    return Writer(
        tid=TGID if main else TGID + int(thread.removeprefix("pool-")),
        tgid=TGID,
        main=main,
        comm="openclaw" if main else "libuv-worker",
        uid=1000,
        gid=1000,
        known="ok",
        process=GATEWAY,
    )
