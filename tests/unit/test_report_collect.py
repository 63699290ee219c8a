"""What a report takes from a log: lanes, fences, marks, culprits and counts, bounded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.lanes.writer import Process, Writer
from guardfs.report import pictures
from guardfs.report.collect import Collector
from guardfs.report.model import MAX_DRAWN
from tests.unit.fenced_log import CRON, KEY, NAME, RUN, TOUCH, FencedLog, record
from tests.unit.report_tools import SESSION, TRANSCRIPT, at, drawn, fed, html, marks, operation, read


@pytest.fixture
def fenced(tmp_path: Path) -> Iterator[FencedLog]:
    with FencedLog(tmp_path) as log:
        log.append(RUN, b'{"type":"session","id":"s"}\n')
        yield log


def ended(log: FencedLog, **options: Any) -> Collector:
    log.__exit__()
    return read(log.path, **options)


def three_deaths(log: FencedLog) -> None:
    """Of a script's append, of a touch, and of a change below the mount; and a turn that lives."""
    kills: list[Callable[[], None]] = [
        lambda: log.append(CRON, record("bf09c3d4", log.leaf)),
        lambda: log.touch(TOUCH),
        lambda: log.below(record("0badcafe", log.leaf)),
    ]
    for number, kill in enumerate(kills):
        log.turn()
        log.wait(300 + number)
        kill()
        log.wait(100)
        log.check()
        log.wait(5000)
    log.turn()
    log.check()


# ---- fences, incidents, culprits


def test_each_incident_leads_from_the_culprits_change_to_the_check(fenced: FencedLog) -> None:
    three_deaths(fenced)
    found = ended(fenced)
    shown = drawn(found)
    (session,) = shown["sessions"]
    lanes = [lane["name"] for lane in session["lanes"]]
    told = [
        (
            each["number"],
            lanes[each["lane"]],
            lanes[each["culprit"]["lane"]],
            each["culprit"]["op"],
            each["lost"],
        )
        for each in session["incidents"]
    ]
    assert told == [
        (1, "gateway", "cron", "append", True),
        (2, "gateway", "touch", "attributes", True),
        (3, "gateway", "unseen", "unseen", True),
    ]
    changes = [marks(shown)[each["culprit"]["mark"]] for each in session["incidents"]]
    assert [(each["lane"], each["op"]) for each in changes] == [
        ("cron", "append"),
        ("touch", "attributes"),
        ("unseen", "unseen: modified"),
    ]
    for each, change in zip(session["incidents"], changes, strict=True):
        assert each["culprit"]["time"] == change["time"] < each["time"]
    assert found.outcomes == Counter(lost=3)
    assert found.incidents[0].did == "append message/user bf09c3d4, 142 bytes"


def test_fences_are_as_long_as_the_owner_relied_on_the_file_and_say_how_they_ended(fenced: FencedLog) -> None:
    three_deaths(fenced)
    shown = drawn(ended(fenced))
    (session,) = shown["sessions"]
    assert [fence["reason"] for fence in session["fences"]] == ["died", "died", "died", "closed"]
    assert [fence["token"] for fence in session["fences"]] == [1, 2, 3, 4]
    for fence, incident in zip(session["fences"], session["incidents"], strict=False):
        assert fence["open"] < incident["culprit"]["time"] < incident["time"] <= fence["close"]
        assert fence["tgid"] == 4102


def test_a_fence_that_is_still_open_has_no_end(fenced: FencedLog) -> None:
    fenced.turn()
    (fence,) = drawn(ended(fenced))["sessions"][0]["fences"]
    assert (fence["close"], fence["token"]) == (None, 1)


def test_the_owners_lanes_come_first_and_those_who_only_look_last(fenced: FencedLog) -> None:
    cat = Process(7009, 60009, "/bin/cat", ("cat",), (), None, None, None, None)
    fenced.look(Writer(7009, 7009, True, "cat", 0, 0, "ok", cat))
    three_deaths(fenced)
    (session,) = drawn(ended(fenced))["sessions"]
    lanes = [(lane["name"], lane["role"]) for lane in session["lanes"]]
    own = [name for name, role in lanes if role == "own"]
    assert own and all(name.startswith("gateway:") for name in own)
    assert lanes == [
        ("gateway", "owner"),
        *((name, "own") for name in own),
        ("cron", "other"),
        ("touch", "other"),
        ("cat", "other"),
        ("unseen", "unseen"),
    ]


def test_records_that_were_forgotten_and_other_things_noticed_are_notes(fenced: FencedLog) -> None:
    fenced.turn()
    fenced.append(CRON, record("bf09c3d4", fenced.leaf, "assistant"))
    fenced.check(survives=True)
    fenced.cycle("LwL")
    found = ended(fenced)
    (session,) = drawn(found)["sessions"]
    assert [said for _, said in session["notes"]] == ["forgotten: the owner went on without what cron wrote"]
    assert (found.forgotten, found.outcomes.total()) == (1, 0)


def test_a_token_that_comes_again_after_the_state_was_lost_is_another_fence() -> None:
    fence = {"op": "fence", "path": TRANSCRIPT, "session": SESSION, "owner": "gateway", "token": 1}
    events = [
        {**fence, "time": at(ms + after), "opened": at(ms), "change": change, "reason": "closed"}
        for ms in (0, 5000)
        for after, change in ((0, "opened"), (900, "closed"))
    ]
    found = drawn(fed(events))["sessions"][0]["fences"]
    assert [(each["token"], each["open"], each["close"]) for each in found] == [
        (1, 0, 900_000),
        (1, 5_000_000, 5_900_000),
    ]


# ---- marks and counts


def test_a_mark_says_who_did_what_with_which_record_and_verdict() -> None:
    event = operation(
        ms=3, lane="cron", **{"class": "append"}, bytes=42, would="stage", rule="others wait",
        record={"type": "message", "role": "user", "id": "a1", "parent": "b2"},
        fence={"token": 9, "owner": "gateway", "relation": "other"},
    )  # fmt: skip
    shown = drawn(fed([operation("look"), event]))
    look, append = marks(shown)
    assert (look["op"], look["quiet"], look["time"]) == ("look", True, 0)
    assert append == {
        "time": 3000, "lane": "cron", "op": "append", "path": TRANSCRIPT, "comm": "cron", "tgid": 7,
        "rule": "others wait", "verdict": "allow", "would": "stage", "fence": "other fence 9", "errno": 0, "to": "",
        "quiet": False, "bytes": 42, "record": ["message", "user", "a1", "b2", ""], "count": 1,
    }  # fmt: skip


def test_counts_by_lane_and_file() -> None:
    lock = f"{TRANSCRIPT}.lock"
    temporary = ".fs-safe-replace.4102.5f0c6a52-1d5e-4b8f-9a53-0d3c2f6f7a11.tmp"
    found = fed(
        [
            operation(bytes=10),
            operation(bytes=5, would="stage"),
            operation(bytes=7, errno=28),
            operation("look"),
            operation("look", path=lock, errno=2),  # the lock is free: nothing that failed
            operation("create", path=lock),
            operation("unlink", path=lock),
            operation("attributes", lane="cron"),
            {**operation(path=temporary, bytes=100, count=3), "session": None},
            {**operation("rename", path=temporary, to="sessions.json"), "session": None},
        ]
    ).counts
    (gateway, files), (cron, _) = found.by_lane()
    assert found.operations == 12
    assert (gateway.lane, gateway.writes, gateway.bytes, gateway.failed) == ("gateway", 5, 115, 1)
    assert {
        row.file: (row.writes, row.changes, row.locks, row.looks, row.held, row.failed) for row in files
    } == {
        TRANSCRIPT: (2, 0, 1, 1, 1, 1),
        ".fs-safe-replace.*.*.tmp": (3, 0, 0, 0, 0, 0),
        "sessions.json": (0, 1, 0, 0, 0, 0),
    }
    assert (cron.lane, cron.changes) == ("cron", 1)


def test_a_rename_onto_a_transcript_belongs_to_the_transcript() -> None:
    event = {**operation("rename", path=f"{TRANSCRIPT}.part", to=TRANSCRIPT), "class": "rewrite"}
    found = fed([operation(), event])
    assert drawn(found)["sessions"][0]["files"] == [TRANSCRIPT]
    assert [row.file for _, rows in found.counts.by_lane() for row in rows] == [TRANSCRIPT]


# ---- what was asked for


def test_since_and_until_cut_what_is_shown_and_counted_but_not_who_a_process_is(fenced: FencedLog) -> None:
    three_deaths(fenced)
    whole = ended(fenced)
    _, second, third = whole.incidents
    found = read(fenced.path, since=second.incident.opened, until=third.incident.opened)
    assert [(each.incident.seq, each.culprit) for each in found.incidents] == [
        (second.incident.seq, second.culprit)
    ]
    assert found.incidents[0].owner.command == "/usr/local/bin/node"
    assert 0 < found.counts.operations < whole.counts.operations
    assert [fence["reason"] for fence in drawn(found)["sessions"][0]["fences"]][:1] == ["died"]


def test_a_session_is_shown_with_what_only_names_its_file(fenced: FencedLog) -> None:
    three_deaths(fenced)
    fenced.append(CRON, record("1", None), name="other.jsonl")
    found = ended(fenced, session=KEY)
    (session,) = drawn(found)["sessions"]
    assert (session["name"], session["files"]) == (KEY, [NAME])
    assert found.unseen == 1 and any(each["lane"] == "unseen" for each in marks(drawn(found)))


def test_holes_in_the_log_are_told_whatever_session_was_asked_for() -> None:
    gap = {"time": at(1), "op": "gap", "count": 12, "from": at(0), "to": at(1), "error": "ENOSPC"}
    assert fed([operation(), gap], session=SESSION).gaps == 12


def test_two_logs_with_a_transcript_of_one_name_are_two_sessions() -> None:
    collector = Collector()
    for log in (0, 1):
        collector.feed(operation(ms=log, lane=f"lane {log}"), log)
    sessions = drawn(collector)["sessions"]
    assert sorted((each["log"], each["lanes"][0]["name"]) for each in sessions) == [
        (0, "lane 0"),
        (1, "lane 1"),
    ]


def test_a_session_that_got_a_new_transcript_is_one_picture() -> None:
    shown = drawn(fed([operation(), operation(ms=5, path="second.jsonl")]))
    assert [(each["name"], each["files"]) for each in shown["sessions"]] == [
        (SESSION, [TRANSCRIPT, "second.jsonl"])
    ]


# ---- bounds


def test_looks_are_joined_where_there_are_too_many_and_changes_stay() -> None:
    looks = (operation("look", ms=number) for number in range(3000))
    changes = [operation(ms=number * 300 + 0.5, lane="cron") for number in range(10)]
    found = fed(sorted([*looks, *changes], key=lambda event: str(event["time"])), limit=500)
    shown = drawn(found)
    all_of_them = marks(shown)
    assert len(all_of_them) <= 500
    assert sum(each["count"] for each in all_of_them if each["quiet"]) == 3000
    assert [each["count"] for each in all_of_them if not each["quiet"]] == [1] * 10
    assert shown["gap"] > 0 and shown["changes_gap"] == 0


def test_no_log_makes_more_marks_than_the_limit() -> None:
    found = fed((operation(ms=number * 3.5, lane=f"lane {number % 30}") for number in range(5000)), limit=300)
    assert len(marks(drawn(found))) <= 300
    assert sum(each["count"] for each in marks(drawn(found))) == 5000
    assert "are one mark" in html(found)


def test_more_lanes_than_marks_drop_the_oldest_and_say_so() -> None:
    events = (
        operation(
            ms=number, lane=f"lane {number % 40}", path=f"{number % 20}.jsonl", session=str(number % 20)
        )
        for number in range(4000)
    )
    shown = drawn(found := fed(events, limit=20))
    assert sum(len(each["marks"]) // 6 for each in shown["sessions"]) <= 20
    assert shown["dropped"] > 0 and "the oldest: there are too many lanes" in html(found)


def test_sessions_beyond_the_bound_are_given_up_first_those_that_nothing_happened_to(
    monkeypatch: pytest.MonkeyPatch, fenced: FencedLog
) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURES", 20)
    three_deaths(fenced)
    fenced.__exit__()
    later = (
        operation(ms=60_000 + number, path=f"{number:04}.jsonl", session=f"{number:04}")
        for number in range(200)
    )
    found = fed([*fenced.events(), *later])
    shown = drawn(found)
    assert shown["sessions"][0]["name"] == KEY and len(shown["sessions"]) <= 20
    assert shown["left"] + len(shown["sessions"]) == 201
    assert found.pictures.bound.total == sum(len(each["marks"]) // 6 for each in shown["sessions"])


def test_a_page_has_no_more_pictures_than_anyone_looks_at() -> None:
    found = fed(
        operation(ms=number, path=f"{number}.jsonl", session=str(number)) for number in range(MAX_DRAWN + 5)
    )
    shown = drawn(found)
    assert (len(shown["sessions"]), shown["left"]) == (MAX_DRAWN, 5)
    assert "5 sessions more without a picture" in html(found)


def test_fences_beyond_the_bound_are_dropped_from_the_oldest_on_but_for_those_that_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "MAX_FENCES", 50)
    events = []
    for token in range(200):
        about = {"op": "fence", "path": TRANSCRIPT, "session": SESSION, "owner": "gateway"}
        fence = {**about, "token": token, "opened": at(token)}
        reason = "died" if token == 3 else "closed"
        events.append({**fence, "time": at(token), "change": "opened"})
        events.append({**fence, "time": at(token + 0.5), "change": "closed", "reason": reason})
    found = fed(events)
    tokens = [fence["token"] for fence in drawn(found)["sessions"][0]["fences"]]
    assert len(tokens) <= 50 and tokens[0] == 3 and tokens[-1] == 199
    assert found.fences == 200 and drawn(found)["beyond"] == 200 - len(tokens)


def death(number: int) -> dict[str, Any]:
    by = {"lane": "cron", "tid": 7, "tgid": 7, "start": 5, "main": True}
    return {
        "op": "incident", "time": at(number), "path": TRANSCRIPT, "session": SESSION, "owner": "gateway", "token": 1,
        "kind": "lane", "outcome": "lost", "culprit": {"time": at(number - 0.5), "change": "append", "by": by},
    }  # fmt: skip


def test_of_more_incidents_and_notes_than_can_be_drawn_the_later_ones_are_and_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "MAX_BLAMES", 50)
    monkeypatch.setattr(pictures, "MAX_NOTES", 40)
    stale = {"op": "stale", "path": TRANSCRIPT, "session": SESSION, "token": 1, "owner": "gateway"}
    found = fed(event for number in range(1, 300) for event in (death(number), {**stale, "time": at(number)}))
    shown = drawn(found)
    (session,) = shown["sessions"]
    numbers = [each["number"] for each in session["incidents"]]
    assert numbers == list(range(numbers[0], 300)) and 25 <= len(numbers) <= 50
    assert 20 <= len(session["notes"]) <= 40 and session["notes"][-1][0] == max(
        time for time, _ in session["notes"]
    )
    assert (session["lost"], found.outcomes["lost"], found.stale) == (299, 299, 299)
    assert shown["beyond"] == 299 - len(numbers) + 299 - len(session["notes"])
    assert [told.number for told in found.incidents][-1] == 299


# ---- damaged logs

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
change = st.fixed_dictionaries(
    {},
    optional={
        "time": st.just(at(1)) | anything, "change": st.sampled_from(["append", "unlink"]) | anything,
        "by": st.fixed_dictionaries({}, optional={"lane": st.text(max_size=3), "tgid": st.integers()}) | anything,
        "records": anything, "before": anything,
    },
)  # fmt: skip
damaged = st.fixed_dictionaries(
    {"op": st.sampled_from(["write", "look", "rename", "fence", "incident", "forgotten", "lock", "stale", "gap",
                            "unseen", "process", "start", "policy"]) | anything},
    optional={
        "time": st.just(at(1)) | st.datetimes().map(lambda when: f"{when.isoformat()}Z") | anything,
        "path": st.just(TRANSCRIPT) | anything, "session": st.just(SESSION) | anything, "to": anything,
        "lane": anything, "errno": anything, "bytes": anything, "count": anything, "verdict": anything,
        "writer": st.fixed_dictionaries({}, optional={"tid": anything, "tgid": anything, "comm": anything}) | anything,
        "record": anything, "records": anything, "fence": anything, "token": anything, "owner": anything,
        "change": st.sampled_from(["opened", "closed", "loaded"]) | anything, "opened": anything, "reason": anything,
        "kind": anything, "outcome": st.sampled_from(["lost", "saved"]) | anything, "culprit": change | anything,
        "changes": st.lists(change, max_size=2) | anything, "expected": anything, "seen": anything, "process": anything,
        "after_ms": anything, "before_ms": anything, "content": anything, "holder": anything, "version": anything,
        "mountpoint": anything, "policy": anything, "options": anything, "args": anything, "parents": anything,
    },
)  # fmt: skip


@given(st.lists(damaged, max_size=6))
def test_whatever_a_log_holds_makes_a_page(found: list[dict[str, Any]]) -> None:
    collector = fed(found)
    page = html(collector)
    start = page.index('id="model">') + len('id="model">')
    json.loads(page[start : page.index("</script>", start)])
