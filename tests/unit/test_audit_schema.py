"""Events of every operation, as they are really written, fit the published schema."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from guardfs.audit.event import FenceMark, Kind, Notice
from guardfs.audit.levels import CHANGES, NOTICES, QUIET
from guardfs.audit.show import Shower
from guardfs.fence.staging import Key
from guardfs.mount.config import PolicyOptions
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import notice_of, recover
from guardfs.mount.reload import PolicyKeeper, SetBy
from guardfs.mount.views import Views, fingerprint
from guardfs.mount.views.looking import MAX_ERRORS
from guardfs.policy.load import load
from guardfs.state.branches import BranchFacts, BranchStore
from guardfs.transcript.formats import PI
from tests.support.agent import NAME
from tests.support.direct import Direct
from tests.unit.audit_tools import ALLOWED, CRON, OUTSIDE, RECORD, append, make_log, operation, written

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
    for notice in enforcing_notices(tmp_path):
        log.emit(notice)
    staged = msgspec.structs.replace(ALLOWED, verdict="stage", rule="others wait")
    log.emit(append(decision=staged, applied="stage", branch=3, fence=FenceMark(7, "gateway", "other")))
    denied = msgspec.structs.replace(ALLOWED, verdict="deny", rule="nobody cuts", errno=1)
    log.emit(operation("truncate", decision=denied, applied="deny", errno=1))
    log.emit(operation(path=0))
    log.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b"torn")
    log = make_log(tmp_path, hash_key=hash_key)
    log._sink.lose(3, 1, 2, "for the test")
    log.start()
    log.close()
    return written(tmp_path / "audit.jsonl")


def enforcing_notices(place: Path) -> list[Notice]:
    """What views, recovery and the keeper of the policy really say."""
    directory = place / "sessions"
    directory.mkdir()
    (directory / NAME).write_bytes(b'{"type":"session","id":"s"}\n')
    fs = Direct(directory)
    store = BranchStore(str(place / "state"))
    merger = Merger(store, fs.below, PI)
    views = fs.views = Views(fs, store, merger)
    transcript = NAME.encode()
    try:
        fs.lookup(1, transcript, fs.me)
        staged = views.staged(transcript)
        assert staged is not None
        for lane, data in (("cron", RECORD), ("idle", b"")):
            live = views.branch(staged, Key("lane", (0, 0), lane), lane)
            if data:
                views.write(live, data, live.branch.length)
        views.due(transcript)
        assert not views.of
        store.max_total = 0
        views.could_not(transcript, "write", OSError(28, "No space left on device"))
        for _ in range(MAX_ERRORS):
            views.went_wrong(transcript)
        haunt(fs, views, transcript)
        store.max_total = 1 << 20
        conflict = facts(b"gone.jsonl", exists=True, whole=True)
        for branch in (facts(transcript), facts(b"new.jsonl", exists=False, whole=True), conflict):
            store.create(partial(numbered, branch), [RECORD])
        store.create(lambda number: facts(b"absent/deep.jsonl", number=number), [RECORD])
        store.close()
        root = os.open(directory, os.O_RDONLY)
        found = recover(store, merger, root, fs.below)
        os.close(root)
        assert [each.merged and each.merged.result for each in found] == [
            "appended",
            "made",
            "conflict",
            None,
        ]
        loaded = load("record")
        keeper = PolicyKeeper(PolicyOptions(loaded.policy, "record", None, loaded.digest), fs.log)  # type: ignore[arg-type]
        for mode in ("enforce", "off", "policy"):
            keeper.set_mode(mode, SetBy(1000, 7, "guardfs"))
        return [*fs.log.notices_all(), *(notice_of(each, 1) for each in found)]
    finally:
        store.close()
        fs.end()


def haunt(fs: Direct, views: Views, transcript: bytes) -> None:
    """The name is taken away, and the owner lets go."""
    staged = views.staged(transcript)
    assert staged is not None and staged.node is not None
    fs.fds.pin(staged.node)
    st = fs.stat_node(staged.node)
    views.haunt(staged, b"archive", st, "gateway", removed=False)
    os.rename(fs.directory / NAME, fs.directory / "archive")
    fs.nodes.unname(staged.parent, staged.name)
    views.haunted(staged, staged.node, fingerprint(st))
    views.due(transcript)
    os.rename(fs.directory / "archive", fs.directory / NAME)


def numbered(branch: BranchFacts, number: int) -> BranchFacts:
    return msgspec.structs.replace(branch, number=number)


def facts(transcript: bytes, *, number: int = 0, **more: Any) -> BranchFacts:
    return BranchFacts(number=number, transcript=transcript, lane="cron", opened=1, **more)


@pytest.mark.parametrize("hash_key", [None, b"key"])
def test_every_event_fits(
    tmp_path: Path, validator: jsonschema.Draft202012Validator, hash_key: bytes | None
) -> None:
    events = real_events(tmp_path, hash_key)
    for event in events:
        validator.validate(event)
    said = {event["op"] for event in events}
    assert said >= CHANGES | QUIET | {"process", "log", "start", "unseen", "error", "torn", "gap"}
    assert said >= {"branch", "ghost", "unstaged", "recovered", "mode"}
    changes = {event["change"] for event in events if event["op"] == "branch"}
    assert changes == {"begun", "rebased", "dropped", "given up"}
    documented = SCHEMA["properties"].keys() | SCHEMA["$defs"]["process"]["properties"].keys()
    operations = [event for event in events if "writer" in event]
    shower = Shower()
    for event in events:
        line = shower.line(event)
        assert event["op"] in NOTICES | CHANGES | QUIET and "None" not in line, line
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


def test_words_for_what_enforcing_says(tmp_path: Path) -> None:
    real_events(tmp_path, None)
    shower = Shower()
    lines = [shower.line(event)[13:] for event in written(tmp_path / "audit.jsonl")]
    name = NAME.replace("-0000-4000-8000-000000000001", "…")
    for wanted in (
        f"branch 1 of cron begins on {name}, at 28 B",
        f"branch 1 of cron on {name} appended: 1 record, {len(RECORD)} B",
        f"branch 2 of idle on {name} held nothing",
        f"{name} is only recorded from now on: 3 internal errors",
        f"{name}: its owner lets go of archive",
        f"{name}: the write was not staged and went through: No space left on device",
        f"{name}: what cron wrote before the restart appended: 1 record, {len(RECORD)} B",
        "new.jsonl: what cron wrote before the restart became the transcript: 1 record",
        "gone.jsonl: what cron wrote before the restart cannot be merged: it is kept as gone.jsonl.conflict.cron.",
        "deep.jsonl: what cron wrote before the restart waits still: No such file or directory",
        "off, was enforce: set by guardfs[7], user 1000",
        "staged on branch 3",
        "denied EPERM: nobody cuts",
    ):
        assert any(wanted in line for line in lines), wanted
