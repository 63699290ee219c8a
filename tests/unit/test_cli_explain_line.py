"""`guardfs explain --log-line` and `--event` of incidents, as typed, on logs that the real fence machine has filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fenced_log import CRON, KEY, NAME, RUN, START, TOUCH, FencedLog, record

ROOT = Path(__file__).parents[2]
START_TEXT = "2026-05-23T03:37:47+00:00"
WORDS = "session file changed while embedded prompt lock was released"


def guardfs(*args: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", "explain", *args],
        cwd=ROOT, env={**os.environ, "TZ": "UTC", **more}, capture_output=True, text=True, check=False, input=text,
    )  # fmt: skip


def line(ms: int | None, *, lane: str = "main", name: str = NAME, took: int = 1300, hours: float = 0) -> str:
    """An error line of the gateway, *ms* after the log began."""
    at = datetime.fromtimestamp(START // 10**9, UTC) + timedelta(milliseconds=ms or 0, hours=hours)
    stamp = "" if ms is None else f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}+00:00 [diagnostic] "
    error = f"EmbeddedAttemptSessionTakeoverError: {WORDS}: /home/u/.openclaw/agents/main/sessions/{name}"
    return f'{stamp}lane task error: lane={lane} durationMs={took} error="{error}"\n'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> FencedLog:
    """Three turns that died, a minute apart: of a cron job at 1.2 s, of a touch at 61.2 s, of /new at 121.2 s."""
    with FencedLog(tmp_path_factory.mktemp("log")) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        died_of: list[Callable[[], None]] = [
            lambda: log.append(CRON, record("bf09c3d4", log.leaf)),
            lambda: log.touch(TOUCH),
            lambda: log.rename(RUN, f"{NAME}.reset.2026"),
        ]
        for change in died_of:
            log.turn()
            log.wait(800)
            change()
            log.wait(400)
            log.check()
            log.wait(58_800)
        log.append(CRON, record("bf09c3d5", None))  # in no turn's way
    return log


def told(log: FencedLog, text: str, status: int = 0) -> list[dict[str, Any]]:
    found = guardfs("--log-line", "-", "--audit", log.path, "--json", text=text)
    assert found.returncode == status, found.stderr
    result: list[dict[str, Any]] = json.loads(found.stdout)
    return result


def test_an_error_line_becomes_the_story_of_its_turn(log: FencedLog) -> None:
    found = guardfs("--log-line", line(1260), "--audit", log.path)
    assert (found.returncode, found.stderr) == (0, "")
    assert "the text of a message" not in found.stdout and "\x1b" not in found.stdout
    story = " ".join(found.stdout.split())
    assert f"a turn died: session:{KEY}" in story
    assert "gateway (process 4102, /usr/local/bin/node, started by bash) relied on fb87a1b2….jsonl" in story
    assert (
        "802 ms after it had last looked, cron/cron.sh[7001] (process 7001, /bin/dash cron.sh, started by systemd) "
        "appended to it (append message/user bf09c3d4, 142 bytes). 402 ms later gateway came back, found 142 bytes "
        "more, and ended the turn: the reply was lost." in story
    )
    (seq,) = [event["seq"] for event in log.events() if event.get("record", {}).get("id") == "bf09c3d4"]
    assert f"the change itself: #{seq}" in story
    for version in ("2026.5.17-5.19 dies", "2026.5.20 dies", "2026.5.22-6.1 dies", "2026.6.11-7.x dies"):
        assert version in story


def test_the_time_of_the_line_tells_deaths_of_one_transcript_apart(log: FencedLog) -> None:
    pasted = line(1260) + line(61_300) + line(121_500)
    answers = told(log, pasted)
    assert [each["incident"]["culprit"]["change"] for each in answers] == [
        "append",
        "attributes",
        "rename away",
    ]
    assert [each["how"] for each in answers] == ["time"] * 3
    assert [each["incident"]["did"] for each in answers][1] == "touch"
    shown = guardfs("--log-line", "-", "--audit", log.path, text=pasted).stdout
    assert shown.count("a turn died:") == 3
    assert "Its times did, and that is enough." in shown and "no other program is to blame" in shown


def test_deaths_in_a_row_are_each_found(tmp_path: Path) -> None:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        for number in range(5):
            log.turn()
            log.wait(300)
            log.append(CRON, record(f"bf09c3d{number}", log.leaf))
            log.check()
    deaths = [event for event in log.events() if event["op"] == "incident"]
    pasted = ""
    for death in deaths:
        at = datetime.fromisoformat(death["time"]) + timedelta(milliseconds=1)
        after = round((at - datetime.fromisoformat(START_TEXT)).total_seconds() * 1000)
        pasted += line(after, took=305) + line(after, lane=f"session:{KEY}", took=306)
    assert [answer["incident"]["seq"] for answer in told(log, pasted)] == [death["seq"] for death in deaths]


def test_the_two_lanes_of_one_run_are_one_story(log: FencedLog) -> None:
    pasted = (
        line(1260) + "2026-05-23T03:37:48.300Z [ws] else\n" + line(1264, lane=f"session:{KEY}", took=1304)
    )
    assert len(told(log, pasted)) == 1
    shown = guardfs("--log-line", pasted, "--audit", log.path).stdout
    assert "2 lines of the gateway tell of this one turn" in shown
    assert "are one run nested in two lanes, not two writers" in " ".join(shown.split())


def test_a_line_without_a_transcript_is_found_by_its_session(log: FencedLog) -> None:
    text = f'2026-05-23T03:37:48.300Z lane task error: lane=session:{KEY} durationMs=1300 error="{WORDS}"'
    (answer,) = told(log, text)
    assert answer["incident"]["culprit"]["change"] == "append"
    told(log, text.replace("ou_demo", "ou_other"), status=1)


def test_a_line_without_a_time_is_taken_for_the_latest_death(log: FencedLog) -> None:
    (answer,) = told(log, line(None))
    assert (answer["how"], answer["rivals"]) == ("latest", 2)
    assert answer["incident"]["culprit"]["change"] == "rename away"
    assert (
        "the latest turn that died, of 3 it could be"
        in guardfs("--log-line", line(None), "--audit", log.path).stdout
    )


def test_a_clock_of_another_time_zone_is_found_out(log: FencedLog) -> None:
    for hours in (8, -5.5):
        (answer,) = told(log, line(61_300, hours=hours))
        assert (answer["how"], answer["shift_hours"]) == ("zone", hours)
        assert answer["incident"]["culprit"]["change"] == "attributes"
    told(log, line(31_000, hours=8), status=1)
    told(log, line(61_300, hours=24), status=1)


def test_a_time_without_a_day_fits_the_latest_such_time(log: FencedLog) -> None:
    text = f'03:38:48 error diagnostic lane task error: lane=main durationMs=1300 error="{WORDS}: /x/{NAME}"'
    (answer,) = told(log, text)
    assert (answer["how"], answer["incident"]["culprit"]["change"]) == ("day", "attributes")
    (answer,) = told(log, text.replace("03:38", "11:38"))
    assert (answer["how"], answer["shift_hours"]) == ("zone", 8)


def test_what_no_incident_fits_is_told_with_what_the_log_knows_of_that_time(log: FencedLog) -> None:
    found = guardfs("--log-line", line(31_000, took=500), "--audit", log.path)
    assert found.returncode == 1
    assert (
        "no incident fits this line" in found.stdout and "the closest one that died on it: #" in found.stdout
    )
    (answer,) = told(log, line(181_000, took=2000), status=1)
    assert answer["transcript_known"] and answer["incident"] is None
    assert [(event["op"], event["lane"]) for event in answer["meanwhile"]] == [
        ("create", "cron"),
        ("write", "cron"),
    ]
    assert "/bin/dash cron.sh" in guardfs("--log-line", line(181_000, took=2000), "--audit", log.path).stdout


def test_a_transcript_that_the_log_does_not_know(log: FencedLog) -> None:
    found = guardfs("--log-line", line(1260, name="other.jsonl"), "--audit", log.path)
    assert found.returncode == 1 and f"other.jsonl is in no event of {log.path}" in found.stdout


def test_a_line_from_before_the_log(log: FencedLog) -> None:
    found = guardfs("--log-line", line(1260, hours=-48), "--audit", log.path)
    assert found.returncode == 1 and "it does not reach to the line" in found.stdout


def test_errors_about_something_else(log: FencedLog) -> None:
    other = guardfs(
        "--log-line", 'lane task error: lane=main durationMs=9 error="FailoverError: no"', "--audit", log.path
    )
    assert other.returncode == 1 and "FailoverError: no" in other.stdout and "no transcript" in other.stdout
    text = f"2026-05-23T03:37:48Z session file locked (timeout 60000ms): pid=4102 alive=true /x/{NAME}.lock"
    locked = guardfs("--log-line", text, "--audit", log.path)
    assert locked.returncode == 1 and "by process 4102: openclaw[4102] /usr/local/bin/node" in locked.stdout
    stale = guardfs("--log-line", f"2026-05-23T03:37:48Z file lock stale for /x/{NAME}", "--audit", log.path)
    assert stale.returncode == 1 and "took it for a dead process's" in stale.stdout


def test_an_incident_by_its_number(log: FencedLog) -> None:
    seq = next(event["seq"] for event in log.events() if event["op"] == "incident")
    by_number = guardfs("--event", str(seq), "--audit", log.path)
    assert (by_number.returncode, by_number.stdout) == (
        0,
        guardfs("--log-line", line(1260), "--audit", log.path).stdout,
    )
    facts = json.loads(guardfs("--event", str(seq), "--audit", log.path, "--json").stdout)
    assert facts["culprit_process"]["comm"] == "cron.sh" and facts["did"].startswith("append message/user")


def test_forgotten_records_by_their_number(tmp_path: Path) -> None:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        log.turn()
        log.append(CRON, record("bf09c3d5", log.leaf, "assistant"))
        log.cycle("LRL")
    seq = next(event["seq"] for event in log.events() if event["op"] == "forgotten")
    found = guardfs("--event", str(seq), "--audit", log.path)
    assert found.returncode == 0 and "no turn died, but records were forgotten" in found.stdout
    assert "appended to it: message/assistant bf09c3d5" in " ".join(found.stdout.split())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--log-line", "hello"], "no error of a gateway in that text"),
        (["--log-line", "-"], "no error of a gateway in that text"),
        (["--log-line", WORDS, "--audit", "/nonexistent"], "no such file"),
        (["--log-line", WORDS, "--event", "7"], "leave the others out"),
        (["--log-line", WORDS, "--exe", "x"], "leave the others out"),
        (["--log-line", WORDS, "--policy", "record"], "leave the others out"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args: list[str], said: str) -> None:
    found = guardfs(*args)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert said in found.stderr
