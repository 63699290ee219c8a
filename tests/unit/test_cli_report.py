"""`guardfs report`, as typed."""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from guardfs.report.page import MARK
from tests.unit.fenced_log import CRON, NAME, RUN, FencedLog, record

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "guardfs", "report"]


def guardfs(*args: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *args], cwd=ROOT, capture_output=True, check=False, **more)


def model(page: bytes) -> dict[str, Any]:
    found = re.search(rb'id="model">(.*?)</script>', page)
    assert found is not None
    read: dict[str, Any] = json.loads(found[1])
    return read


def filled(directory: Path, turns: int = 1, **options: Any) -> str:
    """A log in which each turn dies of cron."""
    directory.mkdir(exist_ok=True)
    with FencedLog(directory, **options) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        for number in range(turns):
            log.turn()
            log.wait(300)
            log.append(CRON, record(f"bf09{number:04}", log.leaf))
            log.check()
    return log.path


@pytest.fixture
def log(tmp_path: Path) -> str:
    return filled(tmp_path)


def test_the_page_is_written_for_its_owner_only_and_what_is_in_it_is_said(log: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    found = guardfs(log, "-o", str(target))
    assert (found.returncode, found.stdout) == (0, b"")
    assert re.fullmatch(rf"guardfs: {target}: 1 turn lost, \d+ operations; \d+ kB\n", found.stderr.decode())
    assert target.read_bytes().startswith(MARK)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".guardfs-report-*"))


def test_an_earlier_report_is_replaced(log: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    for since in ("2000-01-01", "2100-01-01"):
        assert guardfs(log, "-o", str(target), "--since", since).returncode == 0
    assert model(target.read_bytes())["sessions"] == []


def test_a_link_to_an_earlier_report_stays_a_link(log: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("report.html")
    for _ in range(2):
        assert guardfs(log, "-o", str(tmp_path / "link")).returncode == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "report.html").read_bytes().startswith(MARK)


def test_any_other_file_is_left_alone_unless_forced(log: str, tmp_path: Path) -> None:
    target = tmp_path / "notes.html"
    target.write_text("<!DOCTYPE html>\nmy notes")
    found = guardfs(log, "-o", str(target))
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.decode() == (
        f"guardfs: {target}: exists, and is no earlier report; name another file, or write over it with --force\n"
    )
    assert target.read_text() == "<!DOCTYPE html>\nmy notes"
    assert guardfs(log, "-o", str(target), "--force").returncode == 0
    assert target.read_bytes().startswith(MARK)


def test_the_log_is_not_written_over_even_if_forced(tmp_path: Path) -> None:
    log = filled(tmp_path, 20, max_bytes=8000, keep=50)
    (tmp_path / "other-name").symlink_to(f"{log}.1")
    for name in (log, str(tmp_path / "other-name")):
        before = Path(name).read_bytes()
        found = guardfs(log, "-o", name, "--force")
        assert (found.returncode, found.stderr.decode()) == (
            2,
            f"guardfs: {name}: is the log itself; name another file with -o FILE\n",
        )
        assert Path(name).read_bytes() == before


def test_standard_output_takes_the_page_but_not_a_terminal(log: str) -> None:
    for args in ([log], [log, "-o", "-"]):
        found = guardfs(*args)
        assert (found.returncode, found.stderr) == (0, b"")
        assert found.stdout.startswith(MARK)
    ours, theirs = pty.openpty()
    try:
        found = subprocess.run([*COMMAND, log], cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(theirs)
        os.close(ours)
    assert found.returncode == 2 and b"name a file with -o FILE" in found.stderr


def test_a_pipe_with_a_name_takes_the_page(log: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert guardfs(log, "-o", str(pipe)).returncode == 0
    reader.join()
    assert read[0].startswith(MARK) and stat.S_ISFIFO(pipe.stat().st_mode)


def test_rotated_files_are_read_too(tmp_path: Path) -> None:
    log = filled(tmp_path, 20, max_bytes=8000, keep=50)
    assert len(list(tmp_path.glob("audit.jsonl*"))) > 3
    page = guardfs(log).stdout
    assert [each["lost"] for each in model(page)["sessions"]] == [20]


def test_several_logs_make_one_page(tmp_path: Path) -> None:
    logs = [filled(tmp_path / name) for name in ("one", "two")]
    page = guardfs(logs[0], "--audit", logs[1], logs[0]).stdout
    assert [(each["log"], each["lost"]) for each in model(page)["sessions"]] == [(0, 1), (1, 1)]
    for place in ("one", "two"):
        assert (
            page.count(f" in {tmp_path / place}<".encode()) == 1
        )  # which of the two, beside the file's name


def test_what_is_asked_for_is_said(log: str) -> None:
    page = guardfs(
        log, "--session", "agent:main", "--since", "2026-05-23T00:00Z", "--until", "2026-05-24T00:00Z"
    ).stdout
    assert b"since 2026-05-23T00:00Z, until 2026-05-24T00:00Z, session agent:main" in page
    assert [each["files"] for each in model(page)["sessions"]] == [[NAME]]
    assert model(guardfs(log, "--session", "agent:other").stdout)["sessions"] == []


def test_lines_that_are_no_events_are_skipped_and_counted(log: str) -> None:
    with open(log, "ab") as file:
        file.write(b"not an event\n[]\n")
    found = guardfs(log)
    assert found.returncode == 0 and b"2 lines of the log could not be read" in found.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{log}x"], "{log}x: no such file"),
        (["{log}", "-o", "/no/such/place/report.html"], "/no/such/place: no such directory"),
        (["{log}", "-o", "{dir}"], "{dir}: is a directory"),
        (["{log}", "--since", "noon"], "--since 'noon': not a time"),
        (["{dir}"], "{dir}: no guard is mounted there"),
    ],
)
def test_what_cannot_be_is_one_line(log: str, args: list[str], said: str) -> None:
    named = {"log": log, "dir": os.path.dirname(log)}
    found = guardfs(*[each.format(**named) for each in args])
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.decode().count("\n") == 1 and said.format(**named) in found.stderr.decode()


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(log: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert guardfs(log, "-o", str(target)).returncode == 0
    before = target.read_bytes()
    found = guardfs(log, "-o", str(target), preexec_fn=lambda: limit_files(1000))
    assert found.returncode == 2 and found.stderr.decode().count("\n") == 1
    assert target.read_bytes() == before and not list(tmp_path.glob(".guardfs-report-*"))


def limit_files(size: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
