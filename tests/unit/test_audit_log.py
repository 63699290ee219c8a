"""The log takes events without waiting and writes them in order, once, whatever happens to its file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from guardfs.audit.event import Kind, Notice
from guardfs.audit.latency import Latency, watch
from guardfs.audit.levels import CHANGES, QUIET
from guardfs.audit.log import AuditLog
from guardfs.audit.verify import verify
from guardfs.errors import GuardError
from guardfs.policy.facts import Decision
from tests.unit.audit_tools import CRON, GATEWAY, NODE, RECORD, append, make_log, operation, wait_for, written


def lines_written(log: AuditLog) -> bool:
    return bool(log.stats()["queued"] == 0)


def test_an_event_has_the_settled_names(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(append())
    log.close()
    started, process, event = written(tmp_path / "audit.jsonl")
    assert (started["op"], started["reason"], started["prev"]) == ("log", "started", "0" * 64)
    assert process["args"][-1] == "***" and process["tgid"] == 4102 and process["op"] == "process"
    assert list(event) == [
        "v", "seq", "prev", "time", "op", "path", "writer", "lane", "evidence", "session", "bytes", "offset", "append",
        "record", "rule", "verdict", "errno", "us",
    ]  # fmt: skip
    assert event["writer"] == {
        "tid": 4121, "tgid": 4102, "main": False, "comm": "openclaw", "exe": "/usr/local/bin/node",
        "uid": 1000, "gid": 1000, "start": 50798,
    }  # fmt: skip
    assert event["record"] == {
        "type": "message", "role": "assistant", "id": "bf09c3d4", "parent": "653af451", "provider": "mock",
        "model": "m1",
    }  # fmt: skip
    assert event["session"] == "fb87a1b2-0000-4000-8000-000000000001"
    assert (event["lane"], event["evidence"]) == ("gateway", ["process.exe"])
    assert b"the text of a message" not in (tmp_path / "audit.jsonl").read_bytes()
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit.head").stat().st_mode & 0o777 == 0o600


def test_a_process_is_described_once_in_each_file(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=4000, keep=50)
    log.start()
    for _ in range(100):
        log.emit(append())
        log.emit(operation(writer=CRON))
    log.close()
    files = sorted(tmp_path.glob("audit.jsonl*"))
    assert len(files) > 10
    for file in files:
        assert file.stat().st_size <= 4000
        seen: list[int] = []
        for event in written(file):
            if event["op"] == "process":
                assert event["tgid"] not in seen
                seen.append(event["tgid"])
            elif "writer" in event:
                assert event["writer"]["tgid"] in seen
    report = verify(str(tmp_path / "audit.jsonl"))
    assert report.ok and report.first == 1 and len(report.files) == len(files)
    assert log.stats()["rotations"] == len(files) - 1


def test_rotation_keeps_so_many_files(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=2000, keep=3)
    log.start()
    for _ in range(100):
        log.emit(append())
    log.close()
    assert sorted(path.name for path in tmp_path.glob("audit.jsonl*")) == [
        "audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3",
    ]  # fmt: skip
    report = verify(str(tmp_path / "audit.jsonl"))
    assert report.ok and report.first is not None and report.first > 1 and report.head == "fits"


def test_a_restart_goes_on_with_the_chain(tmp_path: Path) -> None:
    for _ in range(3):
        log = make_log(tmp_path)
        log.start()
        log.emit(append())
        log.close()
    events = written(tmp_path / "audit.jsonl")
    assert [event["seq"] for event in events] == list(range(1, 10))
    assert verify(str(tmp_path / "audit.jsonl")).ok


@pytest.mark.parametrize("change", ["remove", "rename", "truncate"])
def test_a_file_that_others_take_away_is_begun_anew_within_a_second(tmp_path: Path, change: str) -> None:
    log, path = make_log(tmp_path), tmp_path / "audit.jsonl"
    log.start()
    log.emit(append())
    wait_for(lambda: lines_written(log) and log.stats()["seq"] == 3)
    if change == "remove":
        path.unlink()
    elif change == "rename":
        path.rename(tmp_path / "audit.jsonl.1")
    else:
        os.truncate(path, 0)
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    log.emit(append())
    log.close()
    events = written(path)
    reason = "truncated" if change == "truncate" else "replaced"
    assert [event["op"] for event in events] == ["log", "process", "write"]
    assert events[0]["reason"] == reason and events[0]["seq"] == 4
    report = verify(str(path))
    assert report.ok and report.first == (1 if change == "rename" else 4)


def test_reopen_after_a_rotation_by_others(tmp_path: Path) -> None:
    log, path = make_log(tmp_path), tmp_path / "audit.jsonl"
    log.start()
    path.rename(tmp_path / "audit.jsonl.1")
    log.reopen()
    wait_for(path.exists)
    log.close()
    assert verify(str(path)).ok


def test_a_directory_that_is_gone_makes_the_log_fail_and_hold_its_events(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    log = AuditLog(str(directory / "a.jsonl"), str(tmp_path / "head"), keep=1)
    log.start()
    assert not log.failing
    shutil.rmtree(directory)
    log.emit(append())
    wait_for(lambda: log.failing)
    for _ in range(50):
        log.emit(append())
    error = log.stats()["error"]
    assert "a.jsonl" in error
    directory.mkdir()
    wait_for(lambda: not log.failing)
    log.close()
    events = written(directory / "a.jsonl")
    assert [event["op"] for event in events].count("write") == 51
    gap = next(event for event in events if event["op"] == "gap")
    assert gap["count"] == 0 and gap["error"] and gap["from"] <= gap["to"]
    assert verify(str(directory / "a.jsonl")).ok


def test_runs_of_writes_to_other_files_become_one_event(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    now = time.time_ns()
    for number in range(10):
        log.emit(
            operation(
                "write", kind=Kind.OTHER, path=b"x.bin", time_ns=now + number, size=100, offset=number * 100
            )
        )
    log.emit(operation("write", kind=Kind.OTHER, path=b"x.bin", size=7, offset=0, writer=CRON))
    log.emit(operation("rename", kind=Kind.OTHER, path=b"x.bin", to=b"y.bin", writer=CRON))
    log.close()
    events = [event for event in written(tmp_path / "audit.jsonl") if "writer" in event]
    assert [(event["op"], event.get("bytes"), event.get("count")) for event in events] == [
        ("write", 1000, 10),
        ("write", 7, None),
        ("rename", None, None),
    ]
    assert events[0]["offset"] == 0 and events[0]["us"] == 380
    assert "session" not in events[0]


def test_a_run_is_written_after_its_window_without_another_event(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(operation("write", kind=Kind.OTHER, path=b"x.bin", size=7, offset=0))
    wait_for(lambda: b'"x.bin"' in (tmp_path / "audit.jsonl").read_bytes())
    log.close()


def test_levels() -> None:
    def asked(level: str) -> set[tuple[str, int]]:
        log = AuditLog("a", "h", level=level)  # type: ignore[arg-type]
        return {(op, kind) for op in CHANGES | QUIET for kind in Kind if log.wants(op, kind)}

    changes = {(op, kind) for op in CHANGES for kind in Kind}
    assert asked("changes") == changes
    assert asked("transcripts") - changes == {
        (op, kind) for op in ("open", "look", "sync") for kind in (Kind.TRANSCRIPT, Kind.LOCK)
    }
    assert asked("all") == {(op, kind) for op in CHANGES | QUIET for kind in Kind}


def test_emit_never_waits_for_a_thread_that_hangs_and_bounds_what_it_holds(tmp_path: Path) -> None:
    log = make_log(tmp_path)  # not started: nobody takes from the queue
    items = [append(RECORD * 1000) for _ in range(300)]
    for item in items:
        log.emit(item)
    held = sum(len(item.records or ()) for item in items)
    assert held <= 132_000
    assert held + sum(item.more for item in items) == 300_000
    assert log.stats()["queued"] == 300
    small = operation()
    for _ in range(100_000):
        log.emit(small)
    assert log.stats()["queued"] == 100_000 and log.stats()["dropped"] == 300
    log.start()
    log.close()
    gap = next(e for e in written(tmp_path / "audit.jsonl") if e["op"] == "gap")
    assert gap["count"] == 300
    assert verify(str(tmp_path / "audit.jsonl")).gaps == 300


def test_events_of_a_second_hold_their_order_and_none_is_lost(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=200_000, keep=100)
    log.start()
    for number in range(5000):
        log.emit(operation("truncate", size=number))
    log.close()
    sizes = [
        event["bytes"]
        for file in sorted(
            tmp_path.glob("audit.jsonl*"),
            key=lambda path: -int(path.suffix[1:] if path.suffix[1:].isdigit() else 0),
        )
        for event in written(file)
        if event["op"] == "truncate"
    ]
    assert sizes == list(range(5000))


def test_an_event_that_cannot_be_encoded_is_said_and_the_next_is_written(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(operation(path="not bytes"))
    log.emit(operation())
    log.close()
    events = written(tmp_path / "audit.jsonl")
    assert [event["op"] for event in events] == ["log", "error", "process", "create"]
    assert log.stats()["internal_errors"] == 1


def test_stats_are_json(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(append())
    wait_for(lambda: lines_written(log) and log.stats()["seq"] == 3)
    stats = json.loads(json.dumps(log.stats()))
    log.close()
    assert stats["seq"] == stats["written"] == 3
    assert stats["bytes"] == (tmp_path / "audit.jsonl").stat().st_size
    assert stats["lag_ms"]["last"] > 0 and not stats["failing"] and stats["error"] is None


@pytest.mark.parametrize("kind", ["directory", "no directory", "symlink", "fifo", "locked"])
def test_a_log_that_cannot_be_kept_is_refused_with_its_mend(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.jsonl"
    other: AuditLog | None = None
    if kind == "directory":
        path.mkdir()
    elif kind == "no directory":
        path = tmp_path / "no" / "audit.jsonl"
    elif kind == "symlink":
        path.symlink_to(tmp_path / "else")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        other = make_log(tmp_path)
        other.start()
    with pytest.raises(GuardError) as caught:
        AuditLog(str(path), str(tmp_path / "head2")).start()
    assert str(path) in caught.value.what and caught.value.mend
    if other is not None:
        other.close()


CHILD = """
import sys, os
from pathlib import Path
from tests.unit.audit_tools import append, make_log
log = make_log(Path(sys.argv[1]), max_bytes=300_000, keep=1000)
log.start()
print("ready", flush=True)
while True:
    if log.stats()["queued"] < 1000:
        log.emit(append())
"""


@pytest.mark.parametrize("after", [0.05, 0.2, 0.5])
def test_after_kill_9_the_chain_goes_on(tmp_path: Path, after: float) -> None:
    root = Path(__file__).parents[2]
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], cwd=root, stdout=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(after)  # any moment will do
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    log = make_log(tmp_path)
    log.start()
    log.emit(append())
    log.close()
    report = verify(str(tmp_path / "audit.jsonl"))
    assert report.problems == [] and report.first == 1 and report.head == "fits"


def test_a_torn_tail_is_moved_aside_and_said(tmp_path: Path) -> None:
    log, path = make_log(tmp_path), tmp_path / "audit.jsonl"
    log.start()
    log.close()
    torn = b'{"v":1,"seq":2,"prev":"12'
    with path.open("ab") as file:
        file.write(torn)
    assert [problem.kind for problem in verify(str(path)).problems] == ["torn"]
    log = make_log(tmp_path)
    log.start()
    log.close()
    events = written(path)
    assert [event["op"] for event in events] == ["log", "torn", "log"]
    assert events[1]["lost_bytes"] == len(torn) and events[1]["text"] == torn.decode()
    report = verify(str(path))
    assert report.ok and report.torn == 1


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path: Path) -> None:
    log, path = make_log(tmp_path), tmp_path / "audit.jsonl"
    log.start()
    log.emit(append())
    log.close()
    os.truncate(path, path.stat().st_size - 1)
    log = make_log(tmp_path)
    log.start()
    log.close()
    assert [event["op"] for event in written(path)] == ["log", "process", "write", "log"]
    assert verify(str(path)).ok


def test_lag_is_measured_from_the_event_to_its_line(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    done = threading.Event()
    found: list[Latency] = []
    started = threading.Event()

    def look() -> None:
        def stop() -> bool:
            started.set()
            return done.is_set()

        found.append(watch(log.path, stop=stop))

    reader = threading.Thread(target=look)
    reader.start()
    started.wait(20)
    for _ in range(300):
        log.emit(append())
        time.sleep(0.001)
    wait_for(lambda: lines_written(log))
    done.set()
    reader.join()
    log.close()
    assert found[0].events == 300
    assert 0 < found[0].p50 <= found[0].p99 <= found[0].max


def test_notices_are_merged_into_events(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(Notice("unseen", time.time_ns(), {"path": "a", "what": ["\udc80", b"\xff", 1 << 80], "n": 1}))
    log.close()
    event = written(tmp_path / "audit.jsonl")[1]
    assert event["op"] == "unseen" and event["n"] == 1 and event["what"] == ["\\udc80", "\\xff", str(1 << 80)]


def test_names_that_are_not_utf_8_are_kept_exactly(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(operation("rename", kind=Kind.OTHER, path=b"a\xff\n", to=b"b\xfe"))
    log.close()
    event = written(tmp_path / "audit.jsonl")[-1]
    assert (event["path"], event["path_b64"]) == ("a\\xff\n", "Yf8K")
    assert (event["to"], event["to_b64"]) == ("b\\xfe", "Yv4=")


def test_identities_are_hashed_with_a_key(tmp_path: Path) -> None:
    key = "agent:main:feishu:direct:ou_1"
    log = make_log(tmp_path, hash_key=b"secret")
    log.start()
    lane = Decision(f"session:{key}", ("label",), "record", 0, "allow")
    log.emit(append(detail={"uid": 1000, "note": key}, decision=lane))
    log.close()
    text = (tmp_path / "audit.jsonl").read_text()
    event = json.loads(text.splitlines()[-1])
    assert "ou_1" not in text and "user-1000" not in text
    assert event["writer"]["uid"].startswith("h:") and event["uid"] == event["writer"]["uid"]
    assert event["writer"]["gid"] != event["writer"]["uid"]
    assert event["session"].startswith("h:") and event["lane"].startswith("session:h:")
    assert NODE.tgid == event["writer"]["tgid"] == GATEWAY.tgid


def test_identities_deep_in_an_event_are_hashed_too(tmp_path: Path) -> None:
    key = "agent:main:feishu:direct:ou_1"
    log = make_log(tmp_path, hash_key=b"secret")
    log.start()
    by = {"lane": f"session:{key}", "tid": 7}
    log.emit(
        Notice("incident", 1, {"culprit": {"by": by}, "changes": [{"by": by}], "owner": key}, b"s.jsonl")
    )
    log.emit(operation("attributes", detail={"change": {"uid": 1000, "mode": "640"}}))
    log.close()
    text = (tmp_path / "audit.jsonl").read_text()
    incident, _, chown = (json.loads(line) for line in text.splitlines()[-3:])
    assert "ou_1" not in text
    assert incident["changes"][0]["by"] == incident["culprit"]["by"]
    assert incident["culprit"]["by"]["lane"] == f"session:{incident['owner']}" and incident[
        "owner"
    ].startswith("h:")
    assert chown["change"] == {"uid": chown["writer"]["uid"], "mode": "640"}
