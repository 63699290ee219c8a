"""Readers see every line once, in order, across rotation, truncation and removal."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from guardfs.audit.follow import Follower
from guardfs.audit.read import Line, events, events_backward, lines, number_of
from guardfs.audit.select import Filter, moment
from guardfs.audit.show import Shower
from guardfs.errors import GuardError
from tests.unit.audit_tools import CRON, append, make_log, operation, wait_for, written


def seqs(found: list[Line]) -> list[int]:
    return [line.event["seq"] for line in found if line.event is not None]


def test_a_follower_sees_each_line_once_across_many_rotations(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=5000, keep=1000)
    log.start()
    follower = Follower(log.path, from_start=True)
    found: list[Line] = []
    for _ in range(300):
        for _ in range(7):
            log.emit(append())
        found += follower.poll()
    log.close()
    found += follower.poll()
    follower.close()
    assert seqs(found) == list(range(1, log.stats()["seq"] + 1))
    assert log.stats()["rotations"] > 50


def put(path: Path, number: int) -> None:
    """A file of a log that holds one line."""
    path.write_bytes(b'{"seq":%d}\n' % number)


def in_time(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def test_a_follower_misses_nothing_while_a_rotation_is_half_done(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    put(path, 1)
    follower = Follower(str(path), from_start=True)
    assert seqs(follower.poll()) == [1]
    path.rename(tmp_path / "a.jsonl.3")  # was .2 until now; .1 is to become .2 next
    put(tmp_path / "a.jsonl.1", 2)
    put(path, 3)
    found = follower.poll()
    (tmp_path / "a.jsonl.1").rename(tmp_path / "a.jsonl.2")
    path.rename(tmp_path / "a.jsonl.1")
    found += follower.poll()
    put(path, 4)
    found += follower.poll()
    assert seqs(found) == [2, 3, 4]
    follower.close()


def test_a_follower_misses_nothing_when_files_are_renamed_while_it_opens_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, first, second, third = (tmp_path / f"a.jsonl{end}" for end in ("", ".1", ".2", ".3"))
    put(path, 1)
    follower = Follower(str(path), from_start=True)
    assert seqs(follower.poll()) == [1]
    path.rename(second)
    put(first, 2)
    put(path, 3)
    really = os.open

    def rotate_first(name: str, flags: int) -> int:
        if name == str(first) and not third.exists():
            second.rename(third)
            first.rename(second)
            path.rename(first)
            put(path, 4)
        return really(name, flags)

    monkeypatch.setattr("guardfs.audit.follow.os.open", rotate_first)
    assert seqs(follower.poll()) == [2, 3, 4]
    follower.close()


def test_a_follower_whose_file_was_removed_goes_on_with_the_oldest_of_those_written_since(
    tmp_path: Path,
) -> None:
    path, first, second, third = (tmp_path / f"a.jsonl{end}" for end in ("", ".1", ".2", ".3"))
    put(path, 2)
    in_time(path, 200)
    follower = Follower(str(path), from_start=True)
    assert seqs(follower.poll()) == [2]
    path.unlink()
    for at, (name, number) in enumerate([(third, 1), (second, 7), (first, 8), (path, 9)]):
        put(name, number)
        in_time(name, 100 + 150 * at)
    assert seqs(follower.poll()) == [7, 8, 9]
    follower.close()


def test_the_unfinished_last_line_of_a_file_that_was_removed_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"seq":1}\n{"se')
    follower = Follower(str(path), from_start=True)
    assert seqs(follower.poll()) == [1]
    path.rename(tmp_path / "a.jsonl.2")
    put(path, 2)
    assert [line.raw for line in follower.poll() + follower.poll()] == [b'{"se', b'{"seq":2}']
    follower.close()


def test_a_follower_begins_behind_what_is_there_and_goes_on_after_truncation(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"seq":1}\n{"seq":2}\n{"se')
    follower = Follower(str(path))
    assert follower.poll() == []
    with path.open("ab") as file:
        file.write(b'q":3}\n')
    assert seqs(follower.poll()) == [3]
    path.write_bytes(b'{"seq":4}\n')
    assert seqs(follower.poll()) == [4]
    path.unlink()
    assert follower.poll() == []
    path.write_bytes(b'{"seq":5}\n')
    assert seqs(follower.poll()) == [5]
    follower.close()


def test_tail_capital_f_survives_rotation(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=20_000, keep=100)
    log.start()
    out = tmp_path / "out"
    with out.open("wb") as file:
        tail = subprocess.Popen(
            ["tail", "-n", "+1", "-s", "0.05", "-F", log.path], stdout=file, stderr=subprocess.DEVNULL
        )
        for number in range(6):  # tail(1) itself sees only rotations that are apart
            before = log.stats()["rotations"]
            while log.stats()["rotations"] == before:
                log.emit(append())
                wait_for(lambda: log.stats()["queued"] == 0)
            last = log.stats()["seq"]
            wait_for(lambda last=last: b'"seq":%d,' % last in out.read_bytes())  # type: ignore[misc]
            assert number < 6
        log.close()
        last = log.stats()["seq"]
        wait_for(lambda: b'"seq":%d,' % last in out.read_bytes())
        tail.terminate()
        tail.wait()
    assert [event["seq"] for event in written(out)] == list(range(1, last + 1))


def test_reading_forwards_and_backwards_gives_the_same_lines(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=100_000, keep=100)
    log.start()
    for _ in range(1000):
        log.emit(append())
    log.close()
    forwards = [line.raw for line in lines(log.path)]
    assert forwards == [line.raw for line in events_backward(log.path)][::-1]
    assert len(forwards) == log.stats()["seq"]


def test_a_line_that_is_no_event_is_handed_out_with_its_place(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.close()
    with open(log.path, "ab") as file:
        file.write(b"\xff\xfe{\n[1]\nunfinished")
    found = list(events(log.path))
    assert [line.where for line in found if line.event is None] == [f"{log.path}:2", f"{log.path}:3"]
    backward = next(line for line in events_backward(log.path) if line.event is None)
    assert number_of(backward) == 3


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="no such file"):
        list(lines(str(tmp_path / "x")))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GuardError, match="not a regular file"):
        list(lines(str(tmp_path / "fifo")))


EVENT = {
    "v": 1, "seq": 7, "time": "2026-05-23T03:37:47.123456Z", "op": "write", "lane": "gateway",
    "path": "fb87a1b2-0000-4000-8000-000000000001.jsonl", "session": "fb87a1b2-0000-4000-8000-000000000001",
    "writer": {"tid": 4121, "tgid": 4102, "main": False, "comm": "openclaw", "exe": "/usr/local/bin/node"},
    "bytes": 462, "offset": 1999, "append": True, "errno": 0, "us": 38, "verdict": "allow",
    "record": {"type": "message", "role": "assistant", "id": "bf09aaaa-1"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), True),
        (Filter(lane="gate*"), True),
        (Filter(lane="cron"), False),
        (Filter(process="node"), True),
        (Filter(process="open*"), True),
        (Filter(process="4102"), True),
        (Filter(process="4121"), True),
        (Filter(process="41"), False),
        (Filter(session="fb87"), True),
        (Filter(session="b87"), False),
        (Filter(ops=frozenset(["write", "open"])), True),
        (Filter(ops=frozenset(["open"])), False),
        (Filter(path="*.jsonl"), True),
        (Filter(path="*.lock"), False),
        (Filter(verdict="deny"), False),
        (Filter(errors=True), False),
        (Filter(since="2026-05-23T03:37:47.123456Z", until="2026-05-23T03:37:47.123456Z"), True),
        (Filter(since="2026-05-23T03:37:47.123457Z"), False),
        (Filter(until="2026-05-23T03:37:47.123455Z"), False),
    ],
)
def test_filters(wanted: Filter, found: bool) -> None:
    assert wanted.match(EVENT) is found


def test_times_as_people_write_them() -> None:
    now = datetime(2026, 5, 23, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    assert moment("10m", now) == "2026-05-23T09:50:00.000000Z"
    assert moment("1.5h ago", now) == "2026-05-23T08:30:00.000000Z"
    assert moment("11:30", now) == "2026-05-23T09:30:00.000000Z"
    assert moment("2026-05-22T00:00", now) == "2026-05-21T22:00:00.000000Z"
    assert moment("2026-05-22T00:00:01Z", now.astimezone(UTC)) == "2026-05-22T00:00:01.000000Z"
    for wrong in ("yesterday", "", "25:61", "99999999999999w"):
        with pytest.raises(ValueError):
            moment(wrong, now)


def test_a_line_for_people_says_who_what_where_how_much_and_result() -> None:
    text = Shower().line(EVENT)
    for part in (
        "gateway/openclaw[4121+]",
        "write",
        "fb87a1b2….jsonl",
        "+462 B",
        "message/assistant bf09aaaa",
    ):
        assert part in text
    assert "\x1b" not in text
    failed = Shower(colour=True).line({**EVENT, "errno": 28})
    assert "ENOSPC" in failed and "\x1b[31m" in failed


def test_a_line_is_cut_to_the_terminal() -> None:
    assert len(Shower(width=60).line(EVENT)) == 60
    assert Shower(width=60).line(EVENT).endswith("…")


def test_a_change_by_another_process_than_usual_stands_out() -> None:
    shower = Shower()
    for _ in range(3):
        assert "other writer" not in shower.line(EVENT)
    other = {**EVENT, "writer": {**EVENT["writer"], "tgid": 99, "tid": 99}}  # type: ignore[dict-item]
    assert "other writer" in shower.line(other)
    assert "other writer" not in shower.line(EVENT)


@pytest.mark.parametrize("bad", ["\x1b[2J", "\r", "\u202e", "\x9b", "\n"])
def test_a_file_name_cannot_paint_on_the_terminal(bad: str) -> None:
    assert bad not in Shower().line({**EVENT, "path": f"a{bad}b", "lane": bad, "to": bad})
    assert bad not in Shower().line({"op": "unseen", "time": "x", "path": bad})


@pytest.mark.parametrize("event", [{}, {"op": 7, "writer": {}}, {"writer": {"tid": []}, "records": [1]}])
def test_any_object_can_be_shown(event: dict[str, object]) -> None:
    assert isinstance(Shower().line(event), str)


def test_real_events_can_be_shown(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.start()
    log.emit(append())
    log.emit(operation("rename", to=b"x.jsonl.reset", writer=CRON))
    log.close()
    shown = [Shower().line(event) for event in written(Path(log.path))]
    assert "openclaw gateway run --token ***" in shown[1]
    assert "-> x.jsonl.reset" in shown[-1]
