"""What the tests of the audit log share: real writers, operations, and waiting for a condition."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardfs.audit.event import Kind, Operation
from guardfs.audit.log import AuditLog
from guardfs.lanes.writer import Process, Writer
from guardfs.policy.facts import Decision
from guardfs.transcript.records import Assembler

NODE = Process(
    tgid=4102,
    start=50798,
    exe="/usr/local/bin/node",
    args=("openclaw", "gateway", "run", "--token", "s3cr3t-value"),
    parents=((4000, "bash"), (1, "systemd")),
    cgroup="/user.slice/user-1000.slice/session-1.scope",
    container=None,
    runtime=None,
    pidns=4026531836,
)
GATEWAY = Writer(4121, 4102, False, "openclaw", 1000, 1000, "ok", NODE)
CRON = Writer(
    7001, 7001, True, "cron.sh", 0, 0, "ok",
    Process(7001, 60001, "/bin/dash", ("sh", "cron.sh"), ((1, "systemd"),), "/", None, None, None),
)  # fmt: skip
ALLOWED = Decision("gateway", ("process.exe",), "record", 0, "allow")
OUTSIDE = Writer(0, 0, False, "", 0, 0, "outside", None)

TRANSCRIPT = b"fb87a1b2-0000-4000-8000-000000000001.jsonl"
RECORD = (
    b'{"type":"message","id":"bf09c3d4","parentId":"653af451","timestamp":"2026-05-23T03:37:47Z","message":'
    b'{"role":"assistant","content":[{"type":"text","text":"the text of a message"}],"provider":"mock",'
    b'"model":"m1"}}\n'
)


def operation(op: str = "create", *, kind: Kind = Kind.TRANSCRIPT, **more: Any) -> Operation:
    facts: dict[str, Any] = {
        "op": op,
        "time_ns": time.time_ns(),
        "us": 38,
        "path": TRANSCRIPT,
        "kind": kind,
        "writer": GATEWAY,
        "decision": ALLOWED,
    }
    return Operation(**{**facts, **more})


def append(data: bytes = RECORD, offset: int = 1999, **more: Any) -> Operation:
    records = Assembler().feed(7, offset, data)
    return operation("write", offset=offset, size=len(data), append=True, records=records, node=7, **more)


def make_log(directory: Path, **options: Any) -> AuditLog:
    """A log, not started, at ``audit.jsonl`` in *directory*, its head at ``audit.head``."""
    return AuditLog(str(directory / "audit.jsonl"), str(directory / "audit.head"), **options)


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until *condition*; fails after *seconds*, which only bounds a broken run."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
