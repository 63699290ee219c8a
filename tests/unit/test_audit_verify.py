"""Every change to a log is found and named; a log that nobody touched is never accused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardfs.audit.chain import GENESIS, Place, digest, link, read_head
from guardfs.audit.verify import verify
from guardfs.errors import GuardError
from tests.unit.audit_tools import append, make_log


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    log = make_log(tmp_path)
    log.start()
    for _ in range(8):
        log.emit(append())
    log.close()
    return tmp_path / "audit.jsonl"


def kinds(path: Path) -> list[str]:
    return [problem.kind for problem in verify(str(path)).problems]


def test_an_untouched_log_is_whole(log_path: Path) -> None:
    report = verify(str(log_path))
    assert report.ok and (report.first, report.last, report.lines) == (1, 10, 10)
    assert report.head == "fits"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(log_path: Path, data: st.DataObject) -> None:
    before = log_path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != before[at]))
    log_path.write_bytes(before[:at] + bytes([byte]) + before[at + 1 :])
    try:
        try:
            report = verify(str(log_path), str(log_path.with_name("audit.head")))
        except GuardError:
            return  # the first line is none any more
        assert not report.ok
        assert all(problem.where.startswith(str(log_path) + ":") for problem in report.problems)
    finally:
        log_path.write_bytes(before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_missing_doubled_or_exchanged_line_is_found(log_path: Path, data: st.DataObject) -> None:
    before = log_path.read_bytes()
    lines = before.splitlines(keepends=True)
    one = data.draw(st.integers(1, len(lines) - 1))
    change = data.draw(st.sampled_from(["missing", "doubled", "exchanged"]))
    if change == "missing":
        del lines[one]
    elif change == "doubled":
        lines.insert(one, lines[one])
    else:
        lines[one - 1], lines[one] = lines[one], lines[one - 1]
    log_path.write_bytes(b"".join(lines))
    try:
        assert not verify(str(log_path)).ok
    finally:
        log_path.write_bytes(before)


def test_a_missing_line_is_named(log_path: Path) -> None:
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:4] + lines[6:]))
    (problem,) = verify(str(log_path)).problems
    assert problem.kind == "missing" and problem.where == f"{log_path}:5"
    assert "seq 5 to 6" in problem.text


def test_a_changed_line_is_named(log_path: Path) -> None:
    log_path.write_bytes(log_path.read_bytes().replace(b'"us":38}\n', b'"us":39}\n', 1))
    (problem,) = verify(str(log_path)).problems
    assert problem.kind == "changed" and problem.where == f"{log_path}:3"


def test_a_cut_tail_is_noticed_by_the_head(log_path: Path) -> None:
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:-2]))
    (problem,) = verify(str(log_path)).problems
    assert problem.kind == "cut" and "2 lines up to seq 10" in problem.text


def test_a_rewritten_end_is_noticed_by_the_head(log_path: Path) -> None:
    lines = log_path.read_bytes().splitlines()
    forged, _ = link(Place(9, digest(lines[-2])), b'"time":"2026-01-01T00:00:00.000000Z","op":"create"}')
    log_path.write_bytes(b"\n".join([*lines[:-1], forged]) + b"\n")
    assert kinds(log_path) == ["rewritten"]


def test_a_cut_tail_stays_found_after_the_guard_starts_again(log_path: Path) -> None:
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:-2]))
    log = make_log(log_path.parent)
    log.start()
    log.close()
    (problem,) = verify(str(log_path)).problems
    assert problem.kind == "missing" and "seq 9 to 10" in problem.text
    assert b'"reason":"missing"' in log_path.read_bytes()


def test_a_head_that_is_older_than_the_log_is_fine(log_path: Path, tmp_path: Path) -> None:
    old = (tmp_path / "audit.head").read_bytes()
    log = make_log(tmp_path)
    log.start()
    log.close()
    (tmp_path / "audit.head").write_bytes(old)
    report = verify(str(log_path))
    assert report.ok and report.head == "older"


def test_a_line_of_somebody_else_is_named(log_path: Path) -> None:
    with log_path.open("ab") as file:
        file.write(b"hello\n")
    (problem,) = verify(str(log_path)).problems
    assert problem.kind == "foreign" and problem.where == f"{log_path}:11"
    log = make_log(log_path.parent)
    log.start()
    log.close()
    assert kinds(log_path) == ["foreign"]


def test_a_removed_rotated_file_in_the_middle_is_found(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=3000, keep=20)
    log.start()
    for _ in range(40):
        log.emit(append())
    log.close()
    path = tmp_path / "audit.jsonl"
    assert verify(str(path)).ok
    (tmp_path / "audit.jsonl.2").unlink()
    assert kinds(path) == ["missing"]


@pytest.mark.parametrize("content", [b"hello\n", b'{"a":1}\n', b"\0" * 5000, b"[1]\n" * 9])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(GuardError, match="not an audit log"):
        verify(str(path))


def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b'{"v":2,"seq":1,"prev":"0","time":"t","op":"x"}\n')
    with pytest.raises(GuardError, match="newer"):
        verify(str(path))


@given(st.lists(st.binary(min_size=1, max_size=30).filter(lambda body: b"\n" not in body), max_size=8))
def test_each_line_carries_the_hash_of_the_one_before(bodies: list[bytes]) -> None:
    place, before = Place(0, GENESIS), GENESIS
    for number, body in enumerate(bodies, 1):
        line, place = link(place, body)
        assert before.encode() in line and place == (number, digest(line))
        before = place.hash


def test_a_head_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "head").write_bytes(b'{"v":1,"seq"')
    assert read_head(str(tmp_path / "head")) is None
