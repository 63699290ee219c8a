"""`guardfs blame`, as typed: transcripts that were written while the real judge, fence machine and log looked on."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardfs.transcript.positions import MAX_LINE
from tests.unit.fenced_log import CRON, NAME, POOL, RUN, TOUCH, FencedLog, record

ROOT = Path(__file__).parents[2]
HEADER = b'{"type":"session","id":"s"}\n'

Story = Callable[[FencedLog], None]


def guardfs(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", "blame", *args],
        cwd=ROOT, env={**os.environ, "TZ": "UTC", **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def logged(directory: Path, *stories: Story) -> FencedLog:
    with FencedLog(directory) as log:
        log.append(RUN, HEADER)
        for story in stories:
            story(log)
    return log


def blamed(log: FencedLog, *args: str, name: str = NAME, status: int | None = None) -> list[dict[str, Any]]:
    found = guardfs(str(log.directory / name), "--audit", log.path, "--json", *args)
    assert found.returncode in ((0, 1) if status is None else (status,)), found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def who(row: dict[str, Any], key: str = "written") -> str | None:
    """The lane and thread behind a row; its `known` where nobody is."""
    written = row.get(key)
    if written is None:
        return str(row["known"]) if key == "written" else None
    return f"{written['by']['lane']}[{written['by']['tid']}]" if written["by"] else "below"


def killed_by_cron(log: FencedLog) -> None:
    log.turn()
    log.append(CRON, record("bf09c3d4", log.leaf))
    log.check()


def another_turn(log: FencedLog) -> None:
    log.turn()
    log.cycle("LwL")
    log.check()


def test_each_record_has_its_lane_process_time_and_verdict(tmp_path: Path) -> None:
    rows = blamed(logged(tmp_path, another_turn), status=0)
    assert [who(row) for row in rows] == [
        "gateway:header[4102]",
        "gateway:run[4102]",
        "gateway:run[4102]",
    ]
    assert [row["standing"] for row in rows] == ["header", "kept", "kept"]
    assert [row["offset"] for row in rows] == [0, 28, 28 + rows[1]["bytes"] + 1]
    assert rows[1]["written"]["time"] == "2026-05-23T03:37:47.007000Z"
    assert (
        rows[1]["written"]["verdict"] == "allow"
        and rows[1]["written"]["by"]["program"] == "/usr/local/bin/node"
    )
    assert not any("text" in row for row in rows)


def test_the_record_that_killed_a_turn_is_forgotten_and_a_fork(tmp_path: Path) -> None:
    log = logged(tmp_path, killed_by_cron, another_turn)
    rows = blamed(log, status=1)
    (row,) = [row for row in rows if row["record"]["id"] == "bf09c3d4"]
    (incident,) = [event["seq"] for event in log.events() if event["op"] == "incident"]
    assert (row["standing"], row["known"], who(row)) == ("forgotten", "log", "cron[7001]")
    assert (row["written"]["would"], row["written"]["relation"]) == ("stage", "other")
    assert row["written"]["killed"] == [incident]
    assert row["fork"] == {"parent": 2, "children": [3, 4], "crossed": True}


def test_for_people_it_is_a_picture_with_marks_and_a_summary(tmp_path: Path) -> None:
    log = logged(tmp_path, killed_by_cron, another_turn)
    found = guardfs(str(tmp_path / NAME), "--audit", log.path)
    assert (found.returncode, found.stderr) == (1, "")
    heading, header, user, foreign, *_ = found.stdout.splitlines()
    assert heading.split() == ["#", "RECORD", "WRITTEN", "BY", "VERDICT", "WHAT"]
    assert header.startswith(" · ") and user.startswith("● ") and foreign.startswith("│○ ")
    assert "2026-05-23 03:37:47.010  cron/cron.sh[7001]" in foreign and "would stage" in foreign
    assert "message/user, 141 B" in foreign and ", forgotten, continues #2 as #4 does" in foreign
    assert "killed a turn (#" in foreign
    summary = found.stdout.split("\n\n")[1]
    assert (
        "1 forgotten; 1 fork, 1 of them between lanes; 1 killed a turn; the agent continues from" in summary
    )
    assert "cron/cron.sh  /bin/dash cron.sh" in summary
    assert "the file: created by gateway:header/openclaw[4102]" in summary
    assert "the text of a message" not in found.stdout and "\x1b" not in found.stdout


def test_the_words_are_shown_only_to_those_who_ask_and_cannot_paint(tmp_path: Path) -> None:
    log = logged(
        tmp_path, lambda log: log.append(CRON, record("bf09c3d4", None, text="red \x1b[31m\r\n \u202e text"))
    )
    found = guardfs(str(tmp_path / NAME), "--audit", log.path, "--text")
    assert "red \\x1b[31m \\u202e text" in found.stdout and "\x1b" not in found.stdout
    assert blamed(log, "--text")[1]["text"] == "red \x1b[31m \u202e text"
    assert "red" not in guardfs(str(tmp_path / NAME), "--audit", log.path).stdout


def test_the_last_n(tmp_path: Path) -> None:
    log = logged(tmp_path, another_turn, another_turn)
    every = blamed(log)
    assert len(every) == 5 and blamed(log, "-n", "2") == every[-2:] and blamed(log, "-n", "0") == []


def test_what_the_log_does_not_know_is_older_or_came_past_it(tmp_path: Path) -> None:
    old = HEADER + record("aaaaaaaa", None)
    (tmp_path / NAME).write_bytes(old)
    with FencedLog(tmp_path) as log:
        log.adopt()
        log.append(CRON, record("bf09c3d4", "aaaaaaaa"))
        log.below(record("eeeeeeee", "bf09c3d4"))
    with (tmp_path / NAME).open("ab") as file:  # the guard is off
        file.write(record("ffffffff", "eeeeeeee"))
    rows = blamed(log, status=0)
    assert [who(row) for row in rows] == ["before", "before", "cron[7001]", "below", "unlogged"]
    shown = guardfs(str(tmp_path / NAME), "--audit", log.path).stdout
    assert shown.count("before the log") == 3 and "below the mount" in shown and "not in the log" in shown


def test_a_file_that_was_changed_without_a_guard_is_blamed_on_nobody(tmp_path: Path) -> None:
    log = logged(tmp_path, killed_by_cron)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b"bf09c3d4", b"00bad000"))
    assert [who(row) for row in blamed(log)][-1] == "unlogged"
    path.write_bytes(record("aaaaaaaa", None) * 3 + path.read_bytes())  # everything has moved
    rows = blamed(log)
    assert [who(row) for row in rows] == ["unlogged"] * 3 + [
        "gateway:header[4102]",
        "gateway:run[4102]",
        "unlogged",
    ]
    assert [row["known"] for row in rows[3:5]] == ["moved", "moved"]


def test_records_that_are_written_anew_stay_their_first_writers(tmp_path: Path) -> None:
    def replaced(log: FencedLog) -> None:
        data = (log.directory / NAME).read_bytes()
        log.append(CRON, data + record("bf09c3d4", log.leaf), "copy.tmp")
        log.rename(CRON, NAME, "copy.tmp")
        log.append(RUN, record("0000ffff", "bf09c3d4"))

    rows = blamed(logged(tmp_path, another_turn, replaced), status=0)
    assert [who(row) for row in rows[:4]] == [
        "gateway:header[4102]", "gateway:run[4102]", "gateway:run[4102]", "cron[7001]",
    ]  # fmt: skip
    assert [who(row, "rewritten") for row in rows] == ["cron[7001]"] * 3 + [None, None]
    assert who(rows[4]) == "gateway:unlocked[4102]"


def test_a_transcript_that_is_emptied_and_written_again(tmp_path: Path) -> None:
    def shortened(log: FencedLog) -> None:
        lines = (log.directory / NAME).read_bytes().splitlines(keepends=True)
        log.truncate(TOUCH, 0)
        log.append(TOUCH, b"".join(lines[1:]))

    rows = blamed(logged(tmp_path, another_turn, shortened))
    assert [who(row) for row in rows] == ["gateway:run[4102]", "gateway:run[4102]"]
    assert [who(row, "rewritten") for row in rows] == ["touch[7002]"] * 2


def test_an_archive_is_followed_through_its_rename_and_the_new_file_is_another(tmp_path: Path) -> None:
    archive = f"{NAME}.reset.2026-05-23T03-37-48.000Z"

    def reset(log: FencedLog) -> None:
        log.rename(RUN, archive)
        log.append(RUN, HEADER)
        log.append(CRON, record("bf09c3d4", None))

    log = logged(tmp_path, another_turn, reset)
    assert [who(row) for row in blamed(log, name=archive)][1:] == [
        "gateway:run[4102]",
        "gateway:run[4102]",
    ]
    assert [who(row) for row in blamed(log)] == ["gateway:header[4102]", "cron[7001]"]
    shown = guardfs(str(tmp_path / archive), "--audit", log.path).stdout
    assert "the file: renamed from fb87a1b2" in shown and "by gateway:reset/openclaw[4102]" in shown


def test_a_transcript_that_is_gone_is_said_to_be_where_it_is(tmp_path: Path) -> None:
    log = logged(tmp_path, lambda log: log.rename(RUN, f"{NAME}.reset.2026"))
    found = guardfs(str(tmp_path / NAME), "--audit", log.path)
    assert (
        found.returncode == 2 and f"no such file; the log says: renamed to {NAME}.reset.2026" in found.stderr
    )


def test_torn_and_strange_lines(tmp_path: Path) -> None:
    def torn(log: FencedLog) -> None:
        log.append(CRON, b"garbage\n\n\xff\xfe{\n")
        log.append(POOL, b'{"type":"message","id":"00000abc","parentId":null,"message":{"role":"us')
        log.append(CRON, b'er"}}')

    rows = blamed(logged(tmp_path, torn), status=1)
    assert [row["standing"] for row in rows] == ["header", "invalid", "invalid", "kept"]
    assert [who(row) for row in rows] == [
        "gateway:header[4102]",
        "cron[7001]",
        "cron[7001]",
        "gateway:maintenance[4121]",
    ]
    assert who(rows[3], "ended") == "cron[7001]" and rows[3]["whole"] is False


def test_a_line_of_a_hundred_megabytes_costs_no_such_memory(tmp_path: Path) -> None:
    log = logged(tmp_path)
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"type":"message","id":"00000abc","parentId":null,"message":{"role":"user","content":"')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}}\n')
        file.write(record("00000def", "00000abc"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    rows = blamed(log, status=0)
    assert (
        rows[1]["record"]["oversize"]
        and rows[1]["record"]["id"] == "00000abc"
        and rows[1]["bytes"] > 100 << 20
    )
    assert rows[2]["standing"] == "kept"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB; of the largest child so far
    assert peak == before or peak < (60 << 10) + 4 * (MAX_LINE >> 10)


def test_formats_without_ids_go_by_place(tmp_path: Path) -> None:
    def lines(log: FencedLog) -> None:
        log.append(CRON, b'{"role":"user","text":"a"}\n{"role":"assistant","text":"b"}\n')

    rows = blamed(logged(tmp_path, lines), "--format", "lines", status=0)
    assert [who(row) for row in rows] == ["gateway:header[4102]", "cron[7001]", "cron[7001]"]


def test_a_name_in_another_directory_is_another_transcript(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    log = logged(tmp_path, another_turn)
    (other / NAME).write_bytes(HEADER)
    found = guardfs(str(other / NAME), "--audit", log.path, "--json")
    assert json.loads(found.stdout)["known"] == "unlogged"


def test_where_the_terminal_has_no_such_marks_others_stand(tmp_path: Path) -> None:
    log = logged(tmp_path, killed_by_cron, another_turn)
    found = guardfs(str(tmp_path / NAME), "--audit", log.path, PYTHONIOENCODING="ascii")
    assert found.returncode == 1 and "\n|o " in found.stdout and "\n* " in found.stdout


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path), "not a regular file"),
    ],
)
def test_what_is_no_transcript_is_one_line_and_exit_2(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    log = logged(tmp_path)
    make(tmp_path / "other.jsonl")
    found = guardfs(str(tmp_path / "other.jsonl"), "--audit", log.path)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert said in found.stderr


def test_without_a_guard_the_log_must_be_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(HEADER)
    found = guardfs(str(tmp_path / NAME))
    assert (
        found.returncode == 2
        and "no guard is mounted there; name its old log with --audit FILE" in found.stderr
    )
