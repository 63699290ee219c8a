"""Rebasing what a real gateway wrote: the records of recorded system calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardfs.transcript.formats import PI, Place
from guardfs.transcript.scan import members
from tests.unit.rebase_tools import on, path, read

TRACES = Path(__file__).parent.parent / "traces"


def shapes(name: str) -> list[tuple[str, bytes, str]]:
    """Transcript, line and thread of each record in a trace; its end is cut off there, and is made up here."""
    found = []
    for text in (TRACES / f"{name}.jsonl").read_text().splitlines():
        entry = json.loads(text)
        file = entry["path"]
        if entry["op"] != "write" or not file.endswith(".jsonl") or ".trajectory" in file:
            continue
        head = entry["head"].encode()
        ends = [end for _, _, end in members(head) if end is not None]
        line = head[: ends[-1]] + b',"more":{"parentId":"no"}}\n'
        found.append((file, line, entry["thread"]))
    return found


@pytest.mark.parametrize("name", ["two-turns", "inject-compact-new-reset-delete", "tool-inject-absent-new"])
def test_what_the_gateways_pool_wrote_continues_what_its_main_thread_wrote(name: str) -> None:
    for file in {file for file, _, _ in shapes(name)}:
        records = [(line, thread == "main") for each, line, thread in shapes(name) if each == file]
        run = on(None, *(line for line, main in records if main), header=False)
        notes = [line for line, main in records if not main]
        found = on(run.leaf, *notes)
        assert found.records == len(notes) and not run.unparsed and not found.unparsed
        for one, other in zip(found.data.splitlines(), b"".join(notes).splitlines(), strict=True):
            assert PI.with_parent(one, None) == PI.with_parent(other, None)
        nodes = [each.id for each in read(run.data + found.data)[0] if PI.place(each) is Place.NODE]
        assert path(run.data + found.data) == nodes


def test_a_note_of_the_gateways_own_pool_continues_the_run_it_raced() -> None:
    """`chat.inject` while a reply streams: note and reply both name the user's message."""
    lines = [
        (line, thread) for file, line, thread in shapes("tool-inject-absent-new") if file.startswith("187d")
    ]
    at = next(number for number, (_, thread) in enumerate(lines) if thread != "main")
    note = lines[at][0]
    reply = next(line for line, thread in lines[at:] if thread == "main")
    assert PI.parse(note).parent == PI.parse(reply).parent == "0f39d300"
    committed = b"".join(line for line, _ in lines[:at]) + reply
    found = on(PI.parse(reply).id, note)
    ids = path(committed + found.data)
    assert ids[-3:] == ["0f39d300", PI.parse(reply).id, PI.parse(note).id]
    assert found.data == note.replace(b'"0f39d300"', b'"ec5c3485"')


def test_a_note_for_an_absent_transcript_continues_the_first_turn() -> None:
    """Header and note of `chat.inject`, with the run's own header and records written meanwhile."""
    lines = [line for file, line, _ in shapes("tool-inject-absent-new") if file.startswith("3fc9")]
    run = [line for file, line, _ in shapes("two-turns")]
    committed = b"".join(run[:3])
    found = on("6c7eb730", lines[0], lines[1])
    assert (found.dropped, found.moved, found.records) == (1, 1, 1)
    assert path(committed + found.data) == ["cbbad0a6", "6c7eb730", PI.parse(lines[1]).id]
