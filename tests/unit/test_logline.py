"""Lines as gateways write them and people paste them. The first ones are a real 2026.5.20's; the shapes of the others
are those of public issue reports."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.audit.logline import Complaint, complaints

NOW = datetime(2026, 5, 26, 12, 0, tzinfo=timezone(timedelta(hours=8)))
FILE = "9fe02f80-14f3-44b1-8fe8-15ab66bedb54.jsonl"
PATH = f"/home/s/.openclaw/agents/main/sessions/{FILE}"
CHANGED = "session file changed while embedded prompt lock was released"
ERROR = f"EmbeddedAttemptSessionTakeoverError: {CHANGED}"


def one(text: str) -> Complaint:
    (found,) = complaints(text, NOW)
    return found


def test_the_lines_of_one_turn_are_one_complaint() -> None:
    found = one(
        f"2026-05-26T09:44:16.643+00:00 [diagnostic] lane task error: lane=main durationMs=3871 "
        f'error="{ERROR}: {PATH}"\n'
        "2026-05-26T09:44:16.650+00:00 [ws] something else\n"
        f"2026-05-26T09:44:16.647+00:00 [diagnostic] lane task error: lane=session:agent:main:main durationMs=3876 "
        f'error="{ERROR}: {PATH}"\n'
        f"2026-05-26T09:44:16.766+00:00 [openai-compat] chat completion failed: {ERROR}: {PATH}\n"
    )
    assert found == Complaint(
        "changed", FILE, "agent:main:main", "2026-05-26T09:44:16.643000Z", True, 3876,
        ("main", "session:agent:main:main"), lines=3,
    )  # fmt: skip


def test_a_line_of_the_gateways_json_log() -> None:
    line = {
        "0": '{"subsystem":"diagnostic"}',
        "1": f'lane task error: lane=main durationMs=12 error="{ERROR}: {PATH}"',
        "_meta": {"runtime": "node", "date": "2026-05-26T09:44:16.643Z"},
    }
    assert one(json.dumps(line)) == one(
        f'2026-05-26T09:44:16.643Z lane task error: lane=main durationMs=12 error="{ERROR}: {PATH}"'
    )
    line |= {"time": "2026-05-26T09:44:17.000+00:00", "message": line["1"]}
    assert one(json.dumps(line)).time == "2026-05-26T09:44:17.000000Z"


@pytest.mark.parametrize(
    ("stamp", "time", "day"),
    [
        ("2026-05-26T09:44:16.643+00:00", "2026-05-26T09:44:16.643000Z", True),
        ("2026-05-26 09:44:16,643", "2026-05-26T01:44:16.643000Z", True),
        ("May 04 17:48:04 host node[11]: 2026-05-04T17:48:04.404+02:00", "2026-05-04T15:48:04.404000Z", True),
        ("May  4 17:48:04 host node[11]:", "2026-05-04T09:48:04.000000Z", True),
        ("Dec 31 23:59:59 host node[11]:", "2025-12-31T15:59:59.000000Z", True),
        ("10:24:16 error", "2026-05-26T02:24:16.000000Z", False),
        ("20:24:16 error", "2026-05-25T12:24:16.000000Z", False),
        ("\x1b[90m10:24:16\x1b[39m", "2026-05-26T02:24:16.000000Z", False),
        ("99:99:99", None, True),
        ("", None, True),
    ],
)
def test_times(stamp: str, time: str | None, day: bool) -> None:
    found = one(f'{stamp} [diagnostic] lane task error: lane=main durationMs=12 error="{ERROR}: {PATH}"')
    assert (found.time, found.day, found.file, found.duration_ms) == (time, day, FILE, 12)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        (PATH, FILE),
        (f"C:\\Users\\Ä B\\.openclaw\\{FILE}", FILE),
        ("/Users/some one/sessions/2026-05-26T09:44:16.000Z_x.jsonl", "2026-05-26T09:44:16.000Z_x.jsonl"),
        ("~/.openclaw/agents/main/sessions/9fe02f80-....jsonl", "9fe02f80-....jsonl"),
        ("~/.openclaw/agents/main/sessions/<session-id>.jsonl", None),
        (".../sessions/.jsonl", None),
    ],
)
def test_paths(path: str, file: str | None) -> None:
    assert one(f'lane task error: lane=main durationMs=12 error="{ERROR}: {path}"').file == file


def test_a_line_that_was_broken_where_it_was_copied() -> None:
    found = one(
        "15:23:37 [diagnostic] lane task error: lane=cron-nested durationMs=45075 \n"
        'error="EmbeddedAttemptSessionTakeoverError: session file changed while\nembedded prompt lock was released: \n'
        f'{PATH}"'
    )
    assert (found.file, found.duration_ms, found.lanes) == (FILE, 45075, ("cron-nested",))
    assert found.time == "2026-05-25T07:23:37.000000Z"


def test_the_bare_error_and_one_that_names_what_came_before() -> None:
    assert one(CHANGED) == Complaint("changed")
    assert one(f"EmbeddedAttemptSessionTakeoverError: LLM idle timeout (120s) <- {ERROR}").kind == "changed"


def test_turns_of_two_sessions_that_died_together_stay_two() -> None:
    other = PATH.replace("9fe0", "0000")
    text = "".join(
        f'2026-05-26T09:44:16.64{n}Z lane task error: lane={lane} durationMs=12 error="{ERROR}: {path}"\n'
        for n, (lane, path) in enumerate(
            [("main", PATH), ("main", other), ("session:agent:main:a", PATH), ("session:agent:main:b", other)]
        )
    )
    assert [(each.file, each.session, each.lines) for each in complaints(text, NOW)] == [
        (FILE, "agent:main:a", 2),
        (FILE.replace("9fe0", "0000"), "agent:main:b", 2),
    ]


def test_two_deaths_of_one_session_are_two() -> None:
    text = "".join(
        f'2026-05-26T09:44:{second} lane task error: lane={lane} durationMs=12 error="{ERROR}: {PATH}"\n'
        for second in ("16.1Z", "17.1Z", "26.1Z")
        for lane in ("main", "session:agent:main:main")
    )
    assert [(each.time, each.lines) for each in complaints(text, NOW)] == [
        ("2026-05-26T09:44:16.100000Z", 2),
        ("2026-05-26T09:44:17.100000Z", 2),
        ("2026-05-26T09:44:26.100000Z", 2),
    ]


def test_errors_about_lock_files() -> None:
    stale = one(f"2026-05-26T09:44:16Z Error: file lock stale for {PATH}: code=file_lock_stale")
    assert (stale.kind, stale.file, stale.time) == ("stale", FILE, "2026-05-26T09:44:16.000000Z")
    locked = one(
        'lane task error: lane=session:agent:main:x durationMs=60167 error="SessionWriteLockTimeoutError: session file '
        f'locked (timeout 60000ms): pid=4102 alive=true ageMs=124708 {PATH}.lock"'
    )
    assert (locked.kind, locked.file, locked.pid, locked.session) == ("locked", FILE, 4102, "agent:main:x")


def test_errors_about_something_else_stand_apart_from_those_beside_them() -> None:
    text = (
        'lane task error: lane=main durationMs=1503394 error="FailoverError: LLM request timed out."\n'
        f'lane task error: lane=main durationMs=15 error="{ERROR}: {PATH}"\n'
        "lane task error: lane=main durationMs=1\n"
    )
    found = complaints(text, NOW)
    assert [(each.kind, each.error, each.duration_ms) for each in found] == [
        ("other", "FailoverError: LLM request timed out.", 1503394),
        ("changed", "", 15),
        ("other", "", 1),
    ]


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"a":1}', "{" * 5000, '{"message":7}'])
def test_what_complains_of_nothing(text: str) -> None:
    assert complaints(text, NOW) == []


SCRAPS = [
    CHANGED, ERROR, PATH, "lane task error:", "lane=", "durationMs=9", " ", "\n", '"', "{", "session file locked",
    "file lock stale for", "pid=1", "23:59:60", "0000-00-00T99:99:99", "9999-12-31T23:59:59-12:00", "\x1b[", "é", ":",
]  # fmt: skip


@given(st.lists(st.sampled_from(SCRAPS), max_size=40))
def test_no_paste_is_too_strange(parts: list[str]) -> None:
    for found in complaints("".join(parts), NOW):
        assert found.kind in ("changed", "stale", "locked", "other")


@pytest.mark.parametrize(
    "scrap", ["session file locked pid=", "lane task error: ", "x.jsonl ", f"{CHANGED}: "]
)
def test_a_huge_paste_is_read_in_one_go(scrap: str) -> None:
    """With a search that grows with the square of the text, this would not come to its end."""
    assert len(complaints(scrap * 30_000, NOW)) <= 2
