"""An error line and the incidents of several logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardfs.audit.logline import Complaint
from guardfs.audit.match import KEPT, NOTED, Search, about, best
from tests.unit.fenced_log import CRON, KEY, NAME, RUN, FencedLog, record


def searched(
    directory: Path, line: Complaint, *, deaths: int, foreign: int = 0, microseconds: int = 0
) -> Search:
    directory.mkdir()
    with FencedLog(directory) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        for _ in range(deaths):
            log.turn()
            log.append(CRON, record("bf09c3d4", log.leaf))
            log.check()
        for _ in range(foreign):
            log.append(CRON, record("bf09c3d4", log.leaf))
    search = Search([line])
    for event in log.events():
        search.take({**event, "time": event["time"].replace("000Z", f"{microseconds:03d}Z")})
    return search


AT = "2026-05-23T03:37:47.100000Z"


def test_the_log_that_has_the_incident_is_taken_before_one_that_only_knows_the_transcript(
    tmp_path: Path,
) -> None:
    line = Complaint("changed", NAME, time=AT, duration_ms=200)
    unknown = searched(tmp_path / "a", Complaint("changed", "x.jsonl"), deaths=0)
    knows = searched(tmp_path / "b", line, deaths=0)
    has = searched(tmp_path / "c", line, deaths=1)
    assert best([unknown, knows], 0) == 1
    assert best([unknown, knows, has], 0) == 2
    assert best([has, knows], 0) == 0


def test_a_time_that_fits_is_surer_than_one_that_would_in_another_time_zone(tmp_path: Path) -> None:
    line = Complaint("changed", NAME, time=AT, duration_ms=200)
    fits = searched(tmp_path / "a", line, deaths=1)
    shifted = searched(tmp_path / "b", Complaint("changed", NAME, time=AT.replace("03:", "11:")), deaths=1)
    assert [search.found(0) is not None for search in (fits, shifted)] == [True, True]
    assert best([shifted, fits], 0) == 1


def test_a_line_of_the_very_millisecond_of_a_death_is_about_that_one_and_not_the_one_before(
    tmp_path: Path,
) -> None:
    known = searched(tmp_path / "a", Complaint("changed", NAME), deaths=2).found(0)
    assert known is not None
    line = Complaint("changed", NAME, time=known.death.incident.time, duration_ms=60_000)
    assert line.time is not None and line.time.endswith("000Z")
    found = searched(tmp_path / "b", line, deaths=2, microseconds=400).found(0)
    assert found is not None and found.death.incident.token == 2


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    line = Complaint("changed", NAME, time="2026-05-23T04:00:00.000000Z", duration_ms=3_600_000)
    search = searched(tmp_path / "a", line, deaths=3, foreign=100)
    assert len(search.remarks(0)) == NOTED and KEPT > 3
    found = search.found(0)
    assert found is not None and found.death.incident.token == 3


@pytest.mark.parametrize(
    ("line", "path", "session", "fits"),
    [
        (Complaint("changed", NAME), f"sub/{NAME}", "", True),
        (Complaint("changed", NAME), f"{NAME}.lock", "", True),
        (Complaint("changed", NAME), "other.jsonl", "", False),
        (Complaint("changed", NAME, KEY), "other.jsonl", KEY, False),
        (Complaint("changed", "fb87a1b2-....jsonl"), NAME, "", True),
        (Complaint("changed", "fb87a1b2…jsonl"), NAME, "", True),
        (Complaint("changed", "....jsonl"), NAME, "", False),
        (Complaint("changed", None, KEY), NAME, KEY, True),
        (Complaint("changed", None, KEY), NAME, "agent:other", False),
        (Complaint("changed"), NAME, KEY, True),
    ],
)
def test_which_transcript_a_line_can_be_about(line: Complaint, path: str, session: str, fits: bool) -> None:
    assert about(line, path, session) is fits
