"""From the lines of a log back to the facts that a policy decides by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardfs.audit.encode import Encoder
from guardfs.audit.event import Operation
from guardfs.audit.facts import EventReader, Outcome, outcome_of
from guardfs.audit.redact import Identities
from guardfs.lanes.writer import Writer
from guardfs.policy.facts import Decision, Facts
from guardfs.policy.files import Files
from guardfs.policy.model import Transcripts
from guardfs.transcript.records import RecordMeta
from tests.unit.audit_tools import CRON, GATEWAY, OUTSIDE, append, operation


def reader() -> EventReader:
    return EventReader(Files(Transcripts()))


def logged(
    item: Operation, encoder: Encoder | None = None, *, described: bool = True
) -> list[dict[str, Any]]:
    """The lines that a log holds of *item*."""
    encoder = encoder or Encoder()
    lines = [encoder.body(item).text]
    if described and item.writer.process is not None:
        lines.insert(0, encoder.process(item.writer.process, 0))
    return [json.loads(b"{" + line) for line in lines]


def read(events: list[dict[str, Any]], by: EventReader | None = None) -> Facts:
    by = by or reader()
    found = [by.read(event) for event in events]
    assert found[:-1] == [None] * (len(found) - 1) and found[-1] is not None
    return found[-1]


def same_writer(one: Writer, other: Writer) -> bool:
    skip = {"cgroup", "runtime", "pidns", "args"}
    first, second = (
        {
            **msgspec.structs.asdict(writer),
            "process": msgspec.structs.asdict(writer.process) if writer.process else {},
        }
        for writer in (one, other)
    )
    for each in (first, second):
        each["process"] = {key: value for key, value in each["process"].items() if key not in skip}
    return first == second


def test_what_was_noted_comes_back() -> None:
    item = append(operation="append", lock="own", claim="tool")
    found = read(logged(item))
    assert same_writer(found.writer, GATEWAY)
    assert found.writer.process is not None and found.writer.process.args[:3] == (
        "openclaw",
        "gateway",
        "run",
    )
    assert (found.operation, found.file, found.path) == ("append", "transcript", item.path)
    assert (found.lock, found.claim, found.fence, found.continues) == ("own", "tool", "none", None)
    assert item.records is not None and found.record == item.records[0]


def test_a_name_that_is_no_text_comes_back_exactly() -> None:
    found = read(logged(operation("rename", path=b"a\xff.jsonl", to=b"\xfe")))
    assert (found.path, found.to) == (b"a\xff.jsonl", b"\xfe")


def test_the_writer_of_many_events_is_one_object() -> None:
    by = reader()
    first, second = read(logged(append()), by), read(logged(append(offset=9), described=False), by)
    assert first.writer is second.writer
    assert read(logged(operation(writer=CRON)), by).writer is not first.writer


def test_another_program_in_the_same_process_is_another_writer() -> None:
    by = reader()
    before = read(logged(operation(writer=CRON)), by)
    assert CRON.process is not None
    after = msgspec.structs.replace(
        CRON, process=msgspec.structs.replace(CRON.process, exe="/bin/cat", args=("cat",))
    )
    found = read(logged(operation(writer=after)), by)
    assert found.writer is not before.writer
    assert found.writer.process is not None and found.writer.process.args == ("cat",)


def test_a_process_that_is_not_described_is_known_by_its_executable_only() -> None:
    by = reader()
    found = read(logged(append(), described=False), by)
    assert by.incomplete and found.writer.process is not None
    assert found.writer.process.exe == "/usr/local/bin/node" and found.writer.process.args == ()
    read(logged(append()), by)
    assert not by.incomplete


def test_a_writer_outside_has_no_process() -> None:
    found = read(logged(operation(writer=OUTSIDE)))
    assert found.writer.known == "outside" and found.writer.process is None


def test_hashed_users_are_unknown() -> None:
    found = read(logged(append(), Encoder(Identities(b"k" * 32))))
    assert (found.writer.uid, found.writer.gid) == (-1, -1)


@pytest.mark.parametrize(
    ("event", "operation_class"),
    [
        ({"op": "write", "append": True}, "append"),
        ({"op": "write", "append": False}, "rewrite"),
        ({"op": "write"}, "rewrite"),
        ({"op": "write", "append": False, "class": "append"}, "append"),
        ({"op": "write", "append": True, "class": "strange"}, "append"),
        ({"op": "rename", "to": "b.jsonl"}, "rewrite"),
        ({"op": "rename", "to": "b.jsonl.bak"}, "rename"),
        ({"op": "open"}, "look"),
        ({"op": "xattr"}, "attributes"),
        ({"op": "of-a-later-version"}, "look"),
    ],
)
def test_the_class_of_an_operation_where_old_logs_have_none(
    event: dict[str, Any], operation_class: str
) -> None:
    assert read([{"path": "a.jsonl", "writer": {"tid": 1}, **event}]).operation == operation_class


def test_the_first_of_several_records_counts() -> None:
    records = [{"type": "a", "id": "1", "new": 7}, {"type": "b"}]
    found = read(
        [{"op": "write", "path": "a.jsonl", "writer": {}, "records": records, "fence": {"relation": "other"}}]
    )
    assert found.record == RecordMeta(type="a", id="1") and found.fence == "other"


@pytest.mark.parametrize(
    "event",
    [
        {"op": "write", "writer": {}},
        {"path": "a", "writer": {}},
        {"op": "write", "path": "a", "writer": 3},
        {"op": "write", "path": "a", "path_b64": "?", "writer": {}},
    ],
)
def test_an_operation_that_does_not_say_enough_is_told_apart(event: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^no |base64"):
        reader().read(event)


_KEYS = (
    "op path path_b64 to writer tid tgid main comm exe uid gid start known args parents pid claim class lock fence "
    "relation record records type id invalid"
).split()
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(_KEYS), _json, max_size=12), max_size=3))
def test_any_objects_give_facts_nothing_or_a_reason(events: list[dict[str, Any]]) -> None:
    by = reader()
    for event in events:
        try:
            found = by.read(event)
        except ValueError:
            continue
        assert found is None or isinstance(found, Facts)
        assert isinstance(outcome_of(event), Outcome)


def test_the_outcome_is_what_the_rule_says_applied_or_not() -> None:
    stage = Decision("gateway:run", ("process.exe",), "other writers wait", 3, "stage")
    assert outcome_of(logged(append(decision=stage))[-1]) == ("gateway:run", "other writers wait", "stage")
    assert outcome_of(logged(append())[-1]) == ("gateway", "record", "allow")
    assert outcome_of({"op": "write"}) == ("-", "-", "-")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from guardfs.audit import facts as module

    monkeypatch.setattr(module, "PROCESSES", 4)
    monkeypatch.setattr(module, "WRITERS", 4)
    by = reader()
    for number in range(50):
        writer = {"tid": number, "tgid": number, "start": 1, "exe": "x"}
        by.read({"op": "process", "tgid": number, "start": 1, "exe": "x", "args": ["y"]})
        by.read({"op": "write", "path": "a", "writer": writer})
    assert len(by._processes) == len(by._writers) == 4
