"""Events of every operation, as they are really written, fit the published schema."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guardfs.audit.event import Kind, Notice
from guardfs.audit.levels import CHANGES, QUIET
from tests.unit.audit_tools import CRON, OUTSIDE, append, make_log, operation, written

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "audit-log.schema.json").read_text())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def real_events(tmp_path: Path, hash_key: bytes | None) -> list[dict[str, Any]]:
    log = make_log(tmp_path, level="all", hash_key=hash_key)
    log.start()
    for kind in Kind:
        for op in sorted(CHANGES | QUIET):
            for writer in (CRON, OUTSIDE):
                log.emit(operation(op, kind=kind, writer=writer, errno=0 if kind else 2))
    for _ in range(3):
        log.emit(operation("write", kind=Kind.OTHER, path=b"x.bin", size=9, offset=0))
    log.emit(operation("rename", path=b"a\xff", to=b"b\xff"))
    log.emit(
        operation("attributes", detail={"mode": 0o100600, "uid": 1, "gid": 2, "mtime_ns": 5, "path": "x"})
    )
    log.emit(append())
    log.emit(append(b'{"id":"a"}\n' * 3 + b"nonsense\n{"))
    log.emit(append(b"x" * (1 << 20) + b"x\n", offset=0))
    log.emit(Notice("start", time.time_ns(), {"version": "1", "mount": "/srv"}))
    log.emit(Notice("unseen", time.time_ns(), {"path": "a", "what": "changed"}))
    log.emit(operation(path=0))
    log.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"torn")
    log = make_log(tmp_path, hash_key=hash_key)
    log._sink.lose(3, 1, 2, "for the test")
    log.start()
    log.close()
    return written(tmp_path / "audit.jsonl")


@pytest.mark.parametrize("hash_key", [None, b"key"])
def test_every_event_fits(
    tmp_path: Path, validator: jsonschema.Draft202012Validator, hash_key: bytes | None
) -> None:
    events = real_events(tmp_path, hash_key)
    for event in events:
        validator.validate(event)
    said = {event["op"] for event in events}
    assert said >= CHANGES | QUIET | {"process", "log", "start", "unseen", "error", "torn", "gap"}
    documented = SCHEMA["properties"].keys() | SCHEMA["$defs"]["process"]["properties"].keys()
    operations = [event for event in events if "writer" in event]
    details = {"mode", "uid", "gid", "mtime_ns", "x_path"}
    assert {key for event in operations for key in event} - details <= documented


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"prev": "0"},
        {"time": "2026-05-23 03:37:47"},
        {"verdict": "perhaps"},
        {"errno": -1},
        {"writer": {"tid": 1}},
        {"record": {"text": "hello"}},
        {"bytes": "7"},
    ],
)
def test_what_is_wrong_does_not_fit(
    tmp_path: Path, validator: jsonschema.Draft202012Validator, change: dict[str, Any]
) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(append())
    log.close()
    event = written(tmp_path / "audit.jsonl")[-1]
    validator.validate(event)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**event, **change})
