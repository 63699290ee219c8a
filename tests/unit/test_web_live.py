"""What the live page knows of a guard: sessions with owners and branches, the tail, pictures; and what is new in it
since somebody last looked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.audit.select import Filter
from guardfs.audit.show import cells
from guardfs.web.live import SESSIONS, Cursor, Live
from guardfs.web.tail import INCIDENTS, TOLD, Tail
from tests.support.live_log import Log
from tests.unit.report_tools import SESSION, TRANSCRIPT, at, operation
from tests.unit.test_report_page import HOSTILE

SECOND = 1_000_000
NOW = 1_795_678_929_000_000
"""us since the epoch."""


def fed(*events: Mapping[str, Any], **options: Any) -> Live:
    live = Live(**options)
    for event in events:
        live.feed(event)
    return live


def everything(live: Live, watched: str = SESSION) -> dict[str, Any]:
    return live.since(Cursor(), watched)


def fence(change: str, ms: float, token: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "op": "fence", "change": change, "time": at(ms), "path": TRANSCRIPT, "session": SESSION, "token": token,
        "owner": "gateway", "opened": at(0), "process": {"tgid": 7, "start": 5}, **more,
    }  # fmt: skip


def branch(change: str, ms: float, number: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "op": "branch", "change": change, "time": at(ms), "path": TRANSCRIPT, "session": SESSION, "branch": number,
        "lane": "cron", **more,
    }  # fmt: skip


def staged(ms: float, size: int = 104) -> dict[str, Any]:
    return operation(ms=ms, lane="cron", verdict="stage", branch=4, bytes=size)


# ---- sessions


def test_a_session_has_its_owner_from_the_opening_of_a_fence_to_its_end() -> None:
    live = fed(operation(), fence("opened", 5, 3))
    (row,) = everything(live)["sessions"]
    assert row["name"] == SESSION and row["events"] == 2 and row["lanes"] == 1
    assert row["owner"] == {"lane": "gateway", "token": 3, "since": row["last"] - 5000, "tgid": 7, "more": 0}
    live.feed(fence("closed", 9, 3, reason="closed"))
    (row,) = everything(live)["sessions"]
    assert "owner" not in row


def test_the_oldest_of_several_owners_is_named_and_the_others_are_counted() -> None:
    live = fed(fence("opened", 5, 3, opened=at(5)), fence("opened", 2, 2, opened=at(2), owner="cli"))
    (row,) = everything(live)["sessions"]
    assert (row["owner"]["lane"], row["owner"]["more"]) == ("cli", 1)


def test_no_owner_outlives_a_mount() -> None:
    live = fed(operation(), fence("opened", 5), {"op": "start", "time": at(9), "mountpoint": "/x"})
    assert "owner" not in everything(live)["sessions"][0]
    assert live.totals()["open"] == 0


def test_a_branch_waits_with_its_bytes_until_it_is_rebased() -> None:
    live = fed(branch("begun", 1, base=3), staged(1), staged(2, 6))
    (row,) = everything(live)["sessions"]
    assert row["branch"] == {"lane": "cron", "since": row["last"] - 1000, "size": 110, "error": "", "more": 0}
    live.feed(branch("failed", 3, error="no space left"))
    assert everything(live)["sessions"][0]["branch"]["error"] == "no space left"
    live.feed(branch("rebased", 4, result="appended", bytes=110, records=2))
    assert "branch" not in everything(live)["sessions"][0]
    assert live.totals()["waiting"] == 0


def test_a_branch_that_becomes_a_replacement_has_another_number() -> None:
    live = fed(branch("begun", 1, 2), operation("rename", 2, "cron", verdict="stage", branch=3))
    assert everything(live)["sessions"][0]["branch"]["more"] == 0
    live.feed(branch("rebased", 3, 3, result="replaced"))
    assert "branch" not in everything(live)["sessions"][0]


def test_what_the_guard_knows_nothing_of_is_forgotten() -> None:
    live = fed(
        fence("opened", 1, 1), fence("opened", 2, 2), branch("begun", 3, 4), branch("begun", 4, 5, lane="x")
    )
    now = live.newest + 6 * SECOND
    many: dict[str, Any] = {"open": 200, "list": [{"path": TRANSCRIPT, "token": 2}]}
    live.correct({"fences": many, "branches": {}}, now)
    assert len(live.sessions[SESSION].owners) == 2, "not all of them are listed"
    kept = {"path": TRANSCRIPT, "branch": 5}
    status = {"fences": {**many, "open": 1}, "branches": {"open": 1, "ghosts": 0, "list": [kept]}}
    live.correct(status, live.newest + SECOND)
    assert len(live.sessions[SESSION].owners) == 2, "the log may be behind, or the status"
    before = live.stamp
    live.correct(status, now)
    (row,) = live.since(Cursor(before, before, before))["sessions"]
    assert (row["owner"]["token"], row["owner"]["more"]) == (2, 0)
    assert (row["branch"]["lane"], row["branch"]["more"]) == ("x", 0)


def test_a_session_takes_the_name_that_the_registry_gives_and_loses_the_one_it_had() -> None:
    name = TRANSCRIPT.removesuffix(".jsonl")
    live = fed(operation(session=name), fence("opened", 1, session=name), branch("begun", 2, session=name))
    before = live.stamp
    live.feed(operation(ms=3))
    found = live.since(Cursor(before, before, before))
    assert found["gone"] == [[name, SESSION]]
    assert [row["name"] for row in found["sessions"]] == [SESSION]
    assert found["sessions"][0]["owner"] and found["sessions"][0]["branch"]
    assert list(live.sessions) == [SESSION]


def test_the_transcripts_of_one_key_are_one_session() -> None:
    live = fed(operation(), operation(path="other.jsonl", ms=5))
    (row,) = everything(live)["sessions"]
    assert (row["files"], row["events"]) == (2, 2)
    assert len(everything(live)["picture"]["session"]["files"]) == 2


def test_sessions_beyond_the_bound_are_given_up_and_said_to_be_gone() -> None:
    live = Live(sessions=20)
    for number in range(50):
        live.feed(operation(ms=number, path=f"{number}.jsonl", session=f"s{number}"))
    assert len(live.sessions) <= 20 and "s49" in live.sessions
    told = {row["name"] for row in live.since(Cursor(0, 0, 0))["sessions"]}
    gone = {name for name, _ in live.since(Cursor(0, 0, 0))["gone"]}
    assert told == set(live.sessions) and gone >= {"s0"} and not gone & told


def test_what_the_status_tells_of_fences_and_branches_before_the_log_is_taken_from_it() -> None:
    live = fed(operation())
    status = {
        "fences": {"list": [
            {"path": TRANSCRIPT, "token": 8, "owner": "gateway", "age_ms": 5000, "tgid": 1}, {"path": 3}, "x",
        ]},
        "branches": {"list": [
            {"path": "b.jsonl", "branch": 2, "lane": "cron", "bytes": 10, "opened_ns": NOW * 1000, "error": ""},
            {"path": "b.jsonl", "ghost": 1, "file": "c"},
        ]},
    }  # fmt: skip
    live.adopt(status, NOW)
    assert live.sessions[SESSION].row()["owner"]["since"] == NOW - 5 * SECOND
    assert live.sessions["b"].row()["branch"] == {
        "lane": "cron",
        "since": NOW,
        "size": 10,
        "error": "",
        "more": 0,
    }
    live.feed(operation(path="b.jsonl", session="agent:main:b"))
    assert "branch" in live.sessions["agent:main:b"].row() and "b" not in live.sessions


# ---- what is new


def test_who_knows_everything_is_told_nothing() -> None:
    live = fed(operation(), fence("opened", 1))
    now = Cursor(live.stamp, live.stamp, live.stamp)
    assert live.since(now, SESSION) == {}


def test_only_what_is_new_is_told() -> None:
    live = fed(operation(), operation(path="other.jsonl", session="other"), fence("opened", 1))
    known = Cursor(live.stamp, live.stamp, live.stamp)
    live.feed(operation(ms=2, lane="cron"))
    found = live.since(known, SESSION)
    assert [row["name"] for row in found["sessions"]] == [SESSION]
    assert [row["lane"] for row in found["tail"]["rows"]] == ["cron"]
    session = found["picture"]["session"]
    assert len(session["marks"]) == 6 and session["fences"] == [] and len(session["lanes"]) == 2
    assert not found["picture"]["fresh"] and not found["tail"]["fresh"]
    live.feed(fence("closed", 5, reason="died"))
    (closed,) = live.since(known, SESSION)["picture"]["session"]["fences"]
    assert closed["reason"] == "died" and closed["close"] == 5000


def test_who_asks_for_no_session_is_told_no_picture() -> None:
    live = fed(operation())
    assert "picture" not in live.since(Cursor())
    assert "picture" not in live.since(Cursor(), "no such session")


def test_what_was_rebased_is_a_mark_in_the_lane_of_who_wrote_it() -> None:
    live = fed(operation(), staged(1), branch("rebased", 2, result="appended", bytes=104))
    drawn = everything(live)["picture"]
    ops = [drawn["strings"][facts[0]] for facts in drawn["facts"]]
    assert ops == ["write", "write", "rebased: appended"]
    time, lane, _, size, _, _ = drawn["session"]["marks"][-6:]
    assert (time, drawn["session"]["lanes"][lane]["name"], size) == (2000, "cron", 104)


def test_what_could_not_be_rebased_is_noted() -> None:
    live = fed(branch("failed", 1, error="no space"), branch("rebased", 2, result="conflict", file="x"))
    notes = [said for _, said in everything(live)["picture"]["session"]["notes"]]
    assert notes == [
        "not rebased yet, what cron staged: no space",
        "conflict: what cron staged could not be merged, and is kept beside the transcript",
    ]


class Reader:
    """Puts together what it is told, as the page does. behind: what it does not look at for now."""

    def __init__(self, watched: str) -> None:
        self.watched = watched
        self.cursor = Cursor()
        self.sessions: dict[str, Any] = {}
        self.tail: list[Any] = []
        self.marks: list[Any] = []
        self.fences: dict[Any, Any] = {}
        self.incidents: dict[int, Any] = {}

    def look(self, live: Live) -> None:
        found = msgspec.json.decode(msgspec.json.encode(live.since(self.cursor, self.watched)))
        if found.get("all"):
            self.sessions.clear()
        for name, _ in found.get("gone", []):
            self.sessions.pop(name, None)
        self.sessions |= {row["name"]: row for row in found.get("sessions", [])}
        if "tail" in found:
            self.tail = [*([] if found["tail"]["fresh"] else self.tail), *found["tail"]["rows"]]
        if "picture" in found:
            self._picture(found["picture"])
        drawn = self.cursor.picture >= 0 or "picture" in found
        self.cursor = Cursor(live.stamp, live.stamp, live.stamp if drawn else -1)

    def _picture(self, told: dict[str, Any]) -> None:
        session, strings = told["session"], told["strings"]
        if told["fresh"]:
            self.marks, self.fences, self.incidents = [], {}, {}
        begin, lanes = session["begin"], [lane["name"] for lane in session["lanes"]]
        for time, lane, facts, size, record, count in zip(*[iter(session["marks"])] * 6, strict=True):
            what = [strings[told["facts"][facts][key]] for key in (0, 1, 3, 4, 5, 6)]
            kept = session["records"][record - 1] if record else None
            self.marks.append([begin + time, lanes[lane], what, size, kept, count])
        for each in session["fences"]:
            self.fences[each["token"], begin + each["open"]] = (
                (each["close"] or -begin) + begin,
                each["reason"],
            )
        self.incidents |= {
            each["number"]: (begin + each["time"], each["label"]) for each in session["incidents"]
        }

    def state(self) -> Any:
        marks = sorted(self.marks, key=lambda mark: mark[0])
        return self.sessions, self.tail, marks, self.fences, self.incidents


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=20), st.integers(0, 1000))
def test_who_looks_often_knows_the_same_as_who_looks_once(steps: list[tuple[int, int]], seed: int) -> None:
    """Whenever a reader looks, and whichever session it watches."""
    log, live = Log(3, seed=seed), Live()
    often = Reader("agent:main:telegram:direct:0001")
    clock = itertools.count(NOW, 700)
    live.feed(log.start(next(clock)))
    for look, events in steps:
        for _ in range(events):
            live.feed(log.next(next(clock)))
        if look:
            often.look(live)
    once = Reader(often.watched)
    once.look(live)
    often.look(live)
    tail, whole = often.tail[-len(once.tail) :], once.tail
    assert tail == whole or len(steps) == 0
    assert (often.sessions, *often.state()[2:]) == (once.sessions, *once.state()[2:])


# ---- bounds


def test_what_leaves_the_window_is_let_go_of_but_for_what_is_still_open() -> None:
    live = fed(
        operation(), fence("opened", 1, 1), fence("closed", 2, 1), fence("opened", 3, 2, opened=at(3)),
        operation(ms=700_000), window=600 * SECOND,
    )  # fmt: skip
    live.trim(NOW * 10)
    session = everything(live)["picture"]["session"]
    assert len(session["marks"]) == 6
    assert [(each["token"], each["close"]) for each in session["fences"]] == [(2, None)]
    assert everything(live)["sessions"][0]["owner"]["token"] == 2


def test_of_a_busy_session_the_last_changes_and_the_last_looks_are_kept() -> None:
    live = Live(marks=100)
    for number in range(1000):
        live.feed(operation("write" if number % 10 == 0 else "look", ms=number))
    live.trim(NOW)
    session = everything(live)
    drawn, marks = session["picture"], session["picture"]["session"]["marks"]
    quiet = [drawn["facts"][facts][9] for facts in marks[2::6]]
    assert (quiet.count(1), quiet.count(0)) == (100, 100)
    assert marks[::6] == sorted(marks[::6])


def test_a_log_whose_clock_is_ahead_does_not_empty_the_window() -> None:
    live = fed(operation(), {**operation(), "time": "2999-01-01T00:00:00.000000Z"})
    live.trim(1_779_507_468 * SECOND)
    assert len(everything(live)["picture"]["session"]["marks"]) == 12


def test_a_thousand_sessions_are_told_at_once_and_in_little() -> None:
    log, live = Log(SESSIONS), Live()
    for number in range(SESSIONS):
        for _ in range(5):
            live.feed(log.next(NOW + number, number))
    found = everything(live)
    assert len(found["sessions"]) == SESSIONS == len(live.sessions)
    assert len(msgspec.json.encode(found["sessions"])) < 300_000
    known = Cursor(live.stamp, live.stamp, live.stamp)
    live.feed(log.next(NOW + 2000, 17))
    assert len(msgspec.json.encode(live.since(known))) < 1000


# ---- the tail


def rows(live: Live, wanted: Filter | None = None, stamp: int = -1, most: int = 100) -> list[dict[str, Any]]:
    return live.tail.since(stamp, wanted or Filter(), most)[0]


def incident(ms: float, outcome: str = "lost") -> dict[str, Any]:
    return {
        "op": "incident", "time": at(ms), "path": TRANSCRIPT, "session": SESSION, "token": 1, "owner": "gateway",
        "outcome": outcome, "kind": "lane", "process": {"tgid": 7, "start": 5}, "opened": at(0),
        "culprit": {"time": at(1), "change": "append", "by": {"lane": "cron", "tid": 9, "tgid": 9}},
    }  # fmt: skip


def test_rows_are_filtered_by_lane_session_verdict_operation_and_for_incidents() -> None:
    live = fed(
        operation(), staged(1), operation("rename", 2, "gateway:reset", session="other", to="x"), incident(3)
    )
    ops = [row["op"] for row in rows(live)]
    assert ops == ["write", "write", "rename", "incident"]
    for wanted, found in (
        (Filter(lane="gateway"), ["write", "rename"]),
        (Filter(lane="cr*"), ["write"]),
        (Filter(session=SESSION), ["write", "write", "incident"]),
        (Filter(verdict="stage"), ["write"]),
        (Filter(ops=frozenset(("rename",))), ["rename"]),
        (Filter(ops=INCIDENTS), ["incident"]),
        (Filter(lane="nobody"), []),
    ):
        assert [row["op"] for row in rows(live, wanted)] == found, wanted


def test_a_row_says_who_did_what_and_how_it_is_to_be_shown() -> None:
    live = fed(staged(1), operation(errno=28, ms=2), incident(3), incident(4, "saved"), operation("look", 5))
    tones = [row.get("tone") for row in rows(live)]
    assert tones == ["held", "bad", "bad", "saved", "quiet"]
    first, _, lost, *_ = rows(live)
    assert first["result"] == "staged on branch 4" and first["lane"] == "cron" and first["what"] == "104 B"
    assert lost["what"] == "a turn of gateway, token 1 died: append by cron[9]"


def test_of_many_rows_the_last_are_told_and_that_there_are_more() -> None:
    live = fed(*(operation(ms=number, seq=number + 1) for number in range(50)))
    found, more = live.tail.since(-1, Filter(), 20)
    assert [row["n"] for row in found] == list(range(31, 51)) and more
    found, more = live.tail.since(30, Filter(), 20)
    assert len(found) == 20 and not more


def test_incidents_are_remembered_for_longer_than_all_the_rest() -> None:
    tail = Tail(rows=10)
    tail.add(1, incident(0), 0)
    for stamp in range(2, 500):
        tail.add(stamp, operation(), 0)
    assert [row["op"] for row in tail.since(-1, Filter(ops=INCIDENTS), 10)[0]] == ["incident"]
    for stamp in range(500, 500 + 2 * TOLD):
        tail.add(stamp, incident(0), 0)
    assert len(tail.since(-1, Filter(ops=INCIDENTS), 10 * TOLD)[0]) == TOLD


def test_what_a_process_was_called_with_is_not_told() -> None:
    args = ["openclaw", "agent", "--message", "the text of a message"]
    process = {"op": "process", "time": at(0), "tgid": 7, "start": 5, "exe": "/bin/node", "args": args}
    torn = {"op": "torn", "time": at(1), "lost_bytes": 30, "text": '{"args":["the text of a message"]'}
    live = fed(process, torn, operation())
    assert b"the text" not in msgspec.json.encode(everything(live))
    assert cells(process).what == "7: /bin/node"


@pytest.mark.parametrize("strange", [[], ["x"], {"a": []}, None, "x", -1, 1 << 63])
def test_whatever_stands_in_a_field_the_page_goes_on(strange: object) -> None:
    log, live = Log(2), Live()
    events = [log.next(NOW + number, number % 2) for number in range(120)]
    for event in events:
        for key in event:
            live.feed({**event, key: strange})
    live.adopt(
        {"fences": strange, "branches": {"list": [strange, {"path": strange, "branch": strange}]}}, NOW
    )
    live.correct({"fences": strange, "branches": {"open": strange, "list": [strange]}}, NOW * 2)
    live.trim(NOW)
    for name in live.sessions:
        msgspec.json.encode(live.since(Cursor(), name))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_would_move_a_cursor_or_turn_text_around_are_escaped(name: str) -> None:
    live = fed(
        operation(session=name, lane=name, path=f"{name}.jsonl"), fence("opened", 1, session=name, owner=name)
    )
    told = msgspec.json.encode(live.since(Cursor(), next(iter(live.sessions)))).decode()
    bad = {*range(32), *range(0x200B, 0x2010), *range(0x2028, 0x202F)}
    assert not [character for character in told if ord(character) in bad]
