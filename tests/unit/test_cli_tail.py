"""`guardfs tail` and `guardfs audit verify`, as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from guardfs.mount.device import guards
from tests.unit.audit_tools import CRON, append, make_log, operation, wait_for

ROOT = Path(__file__).parents[2]


def guardfs(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", *args],
        cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def log_path(tmp_path: Path) -> str:
    log = make_log(tmp_path, max_bytes=5000, keep=50)
    log.start()
    for number in range(30):
        log.emit(append(offset=number))
    log.emit(operation("unlink", writer=CRON, errno=13))
    log.close()
    return log.path


def test_tail_shows_the_last_events(log_path: str) -> None:
    found = guardfs("tail", "--audit", log_path)
    assert found.returncode == 0 and found.stderr == ""
    shown = found.stdout.splitlines()
    assert len(shown) == 20 and "EACCES" in shown[-1] and "cron.sh[7001]" in shown[-1]
    assert "\x1b" not in found.stdout


def test_tail_json_filters_and_counts(log_path: str) -> None:
    found = guardfs("tail", "--audit", log_path, "--json", "--op", "write", "-n", "25")
    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert [event["offset"] for event in events] == list(range(5, 30))
    every = guardfs("tail", "--audit", log_path, "--json", "--op", "write", "--since", "1h")
    assert len(every.stdout.splitlines()) == 30
    assert guardfs("tail", "--audit", log_path, "--until", "1h").stdout == ""
    errors = guardfs("tail", "--audit", log_path, "--errors", "--process", "cron*").stdout.splitlines()
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["tail", "--audit", "/nonexistent/x"], "no such file"),
        (["tail", "--audit", "/"], "is a directory"),
        (["tail", "--audit", __file__], "not an audit log"),
        (["audit", "verify", "--audit", __file__], "not an audit log"),
        (["tail", "--audit", "x", "--op", "wrte"], "did you mean 'write'"),
        (["tail", "--audit", "x", "--since", "soon"], "not a time"),
        (["tail", "--audit", "x", "-f", "--until", "1h"], "leave one out"),
        (["tail", "--audit", "x", "/"], "leave one out"),
        (["tail", "/nonexistent"], "no such directory"),
        (["tail", "/"], "no guard is mounted there"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args: list[str], said: str) -> None:
    found = guardfs(*args)
    assert found.returncode == 2
    assert said in found.stderr and found.stderr.count("\n") == 1 and found.stdout == ""


def test_follow_shows_what_comes_across_rotation_and_ends_on_a_signal(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=5000, keep=500)
    log.start()
    for _ in range(20):
        log.emit(append())
    wait_for(lambda: log.stats()["queued"] == 0)
    out = tmp_path / "out"
    with out.open("wb") as file:
        tail = subprocess.Popen(
            [sys.executable, "-m", "guardfs", "tail", "-f", "-n", "5", "--json", "--audit", log.path],
            cwd=ROOT, stdout=file,
        )  # fmt: skip
        try:
            wait_for(lambda: out.stat().st_size > 0)
            for _ in range(200):
                log.emit(append())
                time.sleep(0.001)
            log.close()
            last = log.stats()["seq"]
            wait_for(lambda: b'"seq":%d,' % last in out.read_bytes())
        finally:
            tail.send_signal(signal.SIGINT)
            assert tail.wait(20) == 130
    seqs = [json.loads(line)["seq"] for line in out.read_text().splitlines()]
    assert seqs == list(range(seqs[0], last + 1))


def test_a_reader_that_has_seen_enough_ends_it_quietly(log_path: str) -> None:
    tail = subprocess.Popen(
        [sys.executable, "-m", "guardfs", "tail", "--json", "--since", "1h", "--audit", log_path],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert tail.stdout is not None and tail.stderr is not None
    tail.stdout.close()
    reader = threading.Thread(target=tail.wait)
    reader.start()
    assert tail.stderr.read() == b""
    reader.join()
    tail.stderr.close()


def test_verify_ends_with_0_or_1_and_names_the_place(log_path: str) -> None:
    found = guardfs("audit", "verify", "--audit", log_path)
    assert found.returncode == 0 and "whole" in found.stdout and "the head fits" in found.stdout
    path = Path(log_path)
    path.write_bytes(path.read_bytes().replace(b'"errno":13', b'"errno":0'))
    found = guardfs("audit", "verify", "--audit", log_path, "--json")
    report = json.loads(found.stdout)
    assert found.returncode == 1 and not report["ok"]
    assert report["problems"][0]["kind"] == "rewritten"
    assert guardfs("audit", "verify", "--audit", log_path).stdout.startswith(f"{log_path}:")


@pytest.mark.parametrize("args", [["tail"], ["audit"], ["audit", "verify"]])
def test_help_ends_with_an_example(args: list[str]) -> None:
    found = guardfs(*args, "--help")
    assert found.returncode == 0 and "Example:  guardfs" in found.stdout.strip().splitlines()[-1]


def test_mounts_are_found_by_their_type_and_unescaped(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    info.write_bytes(
        b"36 35 0:32 / /a\\040b/\xc3\xa9 rw,relatime shared:1 - fuse.guardfs guardfs rw\n"
        b"37 35 0:33 / /c rw - fuse.other x rw\n38 35 0:34 / /d rw - fuse.guardfs guardfs rw\n"
    )
    assert [guard.path for guard in guards(str(info))] == ["/a b/é", "/d"]
