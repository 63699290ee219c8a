"""`guardfs incidents`, as typed, on logs that the real fence machine has filled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardfs.audit.event import Notice
from tests.unit.audit_tools import append, make_log, wait_for
from tests.unit.fenced_log import CRON, KEY, NAME, RUN, TOUCH, FencedLog, record

ROOT = Path(__file__).parents[2]


def guardfs(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", "incidents", *args],
        cwd=ROOT, env={**os.environ, "TZ": "UTC", **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def rows(log: FencedLog, *args: str) -> list[dict[str, Any]]:
    found = guardfs("--audit", log.path, "--json", *args)
    assert found.returncode in (0, 1), found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.fixture
def fenced(tmp_path: Path) -> Iterator[FencedLog]:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        yield log


def killed_by_cron(log: FencedLog) -> None:
    log.turn()
    log.wait(800)
    log.append(CRON, record("bf09c3d4", log.leaf))
    log.wait(400)
    log.check()


def ended(log: FencedLog) -> FencedLog:
    log.__exit__()
    return log


def test_a_turn_that_died_is_one_row_with_owner_culprit_and_operation(fenced: FencedLog) -> None:
    killed_by_cron(fenced)
    found = guardfs("--audit", ended(fenced).path)
    assert (found.returncode, found.stderr) == (1, "")
    heading, row, _, *summary = found.stdout.splitlines()
    assert heading.split() == ["EVENT", "TIME", "TURN", "AFTER", "SESSION", "OWNER", "CULPRIT", "OPERATION"]
    seq = next(event["seq"] for event in fenced.events() if event["op"] == "incident")
    assert row.split("  ")[0] == f"#{seq}"
    assert "2026-05-23 03:37:48.212  lost" in row and "1.2 s" in row and f" {KEY} " in row
    assert row.endswith(
        "gateway  cron/cron.sh[7001]  append message/user bf09c3d4, 142 bytes; /bin/dash cron.sh from systemd"
    )
    assert summary[:3] == [
        "1 incident in 1 session: 1 lost",
        "by writer:     cron 1",
        "by operation:  append 1",
    ]
    assert "\x1b" not in found.stdout and "the text of a message" not in found.stdout


def test_json_has_processes_fingerprints_times_and_the_answer_of_each_version(fenced: FencedLog) -> None:
    killed_by_cron(fenced)
    (found,) = rows(ended(fenced))
    assert (found["session"], found["path"], found["owner"], found["outcome"]) == (
        KEY,
        NAME,
        "gateway",
        "lost",
    )
    assert found["culprit_process"] == {
        "lane": "cron", "tid": 7001, "tgid": 7001, "start": 60001, "main": True, "comm": "cron.sh",
        "program": "/bin/dash", "args": ["sh", "cron.sh"], "parents": ["systemd"],
    }  # fmt: skip
    assert found["owner_process"]["program"] == "/usr/local/bin/node"
    assert found["seen"]["size"] - found["expected"]["size"] == 142
    assert (found["after_ms"], found["before_ms"]) == (802, 402)
    assert [each["answer"] for each in found["versions"]] == ["dies", "dies", "dies", "dies"]


def test_each_kind_of_change_has_its_words(fenced: FencedLog) -> None:
    changes: list[Callable[[], None]] = [
        lambda: fenced.touch(TOUCH),
        lambda: fenced.truncate(RUN, 3),
        lambda: fenced.below(b"more\n"),
        lambda: fenced.rename(RUN, f"{NAME}.reset.2026"),
    ]
    for change in changes:
        fenced.turn()
        change()
        fenced.check()
    found = guardfs("--audit", ended(fenced).path)
    told = [re.split(" {2,}", row)[-2:] for row in found.stdout.splitlines()[1:5]]
    size = next(event["before"]["size"] for event in changes_of(fenced) if event["change"] == "truncate")
    assert told == [
        ["touch[7002]", "touch; /usr/bin/touch from sync.sh"],
        [
            "gateway:header/openclaw[4102]",
            f"truncate, {size - 3:,} bytes gone; the owner's own process, outside its lock",
        ],
        ["below the mount", "unseen, 5 bytes"],
        [
            "gateway:reset/openclaw[4102]",
            "rename away to fb87a1b2….jsonl.reset.2026; the owner's own process, outside its lock",
        ],
    ]


def changes_of(log: FencedLog) -> list[dict[str, Any]]:
    return [event["culprit"] for event in log.events() if event["op"] == "incident"]


def test_a_log_without_incidents_says_so_and_ends_with_0(fenced: FencedLog) -> None:
    fenced.turn()
    fenced.check(survives=True)
    fenced.check()
    found = guardfs("--audit", ended(fenced).path)
    assert (found.returncode, found.stdout) == (0, "no incident: no turn died of a changed transcript\n")
    assert rows(fenced) == []


def test_forgotten_records_are_no_incidents_and_shown_on_demand(fenced: FencedLog) -> None:
    fenced.turn()
    fenced.append(CRON, record("bf09c3d5", fenced.leaf, "assistant"))
    fenced.cycle("LRL")
    fenced.check()
    log = ended(fenced)
    found = guardfs("--audit", log.path)
    assert found.returncode == 0 and "records were forgotten once; --all shows them" in found.stdout
    found = guardfs("--audit", log.path, "--all")
    assert found.returncode == 0
    assert "lived" in found.stdout and "message/assistant bf09c3d5 forgotten" in found.stdout
    (told,) = rows(log, "--all")
    assert told["op"] == "forgotten" and [who["lane"] for who in told["writers"]] == ["cron"]
    assert rows(log) == []


def test_since_until_session_and_the_last_n(fenced: FencedLog) -> None:
    for _ in range(3):
        killed_by_cron(fenced)
        fenced.wait(60_000)
    log = ended(fenced)
    times = [row["time"] for row in rows(log)]
    assert len(times) == 3
    assert [row["time"] for row in rows(log, "--since", times[1])] == times[1:]
    assert [row["time"] for row in rows(log, "--until", times[1])] == times[:2]
    assert [row["time"] for row in rows(log, "-n", "1")] == times[2:]
    assert len(rows(log, "--session", "agent:main:feishu")) == 3
    assert len(rows(log, "--session", f"session:{KEY}")) == 3
    assert rows(log, "--session", "agent:other") == []
    assert guardfs("--audit", log.path, "--since", "2027-01-01").returncode == 0


def test_who_a_process_was_is_remembered_across_rotated_files(tmp_path: Path) -> None:
    with FencedLog(tmp_path, max_bytes=6000, keep=50) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        for _ in range(10):
            killed_by_cron(log)
    assert len(list(tmp_path.glob("audit.jsonl.*"))) > 3
    assert [row["culprit_process"]["comm"] for row in rows(log)] == ["cron.sh"] * 10


def test_a_log_that_is_followed_tells_of_each_as_it_comes(fenced: FencedLog) -> None:
    killed_by_cron(fenced)
    wait_for(lambda: b'"incident"' in Path(fenced.path).read_bytes())
    follower = subprocess.Popen(
        [sys.executable, "-m", "guardfs", "incidents", "--audit", fenced.path, "--follow", "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    try:
        first = json.loads(follower.stdout.readline())
        killed_by_cron(fenced)
        second = json.loads(follower.stdout.readline())
    finally:
        follower.terminate()
        follower.wait()
        follower.stdout.close()
    assert (first["token"], second["token"]) == (1, 2)
    assert second["culprit_process"]["comm"] == "cron.sh"


def test_notices_that_cannot_be_read_are_counted_and_skipped(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(append())
    log.emit(Notice("incident", 1, {"kind": "lane", "outcome": "lost", "culprit": 7}))
    log.emit(
        Notice("incident", 1, {"kind": "lane", "outcome": "lost"})
    )  # of a later version, with less in it
    log.close()
    found = guardfs("--audit", log.path)
    assert found.returncode == 1 and "by writer:     unknown 1" in found.stdout
    assert found.stderr == "guardfs incidents: a notice could not be read; skipped\n"


def test_what_names_hold_does_not_paint_on_the_terminal(tmp_path: Path) -> None:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        log.turn()
        log.rename(RUN, f"{NAME}.reset.\x1b[31m\n")
        log.check()
    found = guardfs("--audit", log.path)
    assert "reset.\\x1b[31m\\n" in found.stdout and "\x1b" not in found.stdout


def test_where_the_output_has_no_such_characters_others_stand(fenced: FencedLog) -> None:
    fenced.turn()
    fenced.rename(RUN, f"{NAME}.reset.2026")
    fenced.check()
    found = guardfs("--audit", ended(fenced).path, PYTHONIOENCODING="ascii")
    assert found.returncode == 1 and "fb87a1b2\\u2026.jsonl" in found.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--audit", "/nonexistent"], "no such file"),
        (["--audit", "x", "/"], "leave one out"),
        (["--follow", "--until", "10m"], "leave one out"),
        (["--audit", "x", "--since", "yesterday"], "not a time"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args: list[str], said: str) -> None:
    found = guardfs(*args)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert said in found.stderr
