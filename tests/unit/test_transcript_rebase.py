"""Branches on a transcript that has gone on: one history, every record once, and no byte changed but parents."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.transcript.chain import History
from guardfs.transcript.formats import CLAUDE_CODE, CODEX, FORMATS, GEMINI_CLI, LINES, PI, Format, Place
from guardfs.transcript.meta import MAX_RECORD, RecordMeta
from guardfs.transcript.positions import positions
from guardfs.transcript.rebase import Rebased, merge, rebase
from guardfs.transcript.scan import members
from tests.unit.test_records import STREAMS

TRACES = Path(__file__).parent.parent / "traces"
HEADER = b'{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}\n'


def node(record_id: str, parent: str | None, **more: Any) -> bytes:
    record = {"type": "message", "id": record_id, "parentId": parent, **more, "message": {"role": "user"}}
    return json.dumps(record).encode() + b"\n"


def side(record_id: str, parent: str | None) -> bytes:
    return node(record_id, parent, appendMode="side")


def leaf(record_id: str, parent: str | None, target: str | None, **more: Any) -> bytes:
    record = {"type": "leaf", "id": record_id, "parentId": parent, "targetId": target, **more}
    return json.dumps(record).encode() + b"\n"


def claude(record_id: str, parent: str | None, **more: Any) -> bytes:
    return json.dumps({"parentUuid": parent, **more, "type": "user", "uuid": record_id}).encode() + b"\n"


def on(
    base: str | None,
    *lines: bytes,
    format: Format = PI,
    header: bool = True,
    newline: bool = True,
    **more: Any,
) -> Rebased:
    return rebase(b"".join(lines), format, leaf=base, header=header, newline=newline, **more)


def read(text: bytes, format: Format = PI) -> tuple[list[RecordMeta], History]:
    history = History(format)
    records = [each.record for each in positions([text], format)]
    for record in records:
        history.add(record)
    return records, history


def path(text: bytes, format: Format = PI) -> list[str | None]:
    """The ids from the start to the leaf."""
    records, history = read(text, format)
    return [records[each].id for each in history.path()][::-1]


def parents(data: bytes, format: Format = PI) -> dict[str | None, str | None]:
    return {each.id: each.parent for each in read(data, format)[0]}


# ---- the first records of a branch


def test_the_first_record_continues_the_current_leaf_and_the_rest_stays_as_written() -> None:
    found = on("c", node("x", "a"), node("y", "x"))
    assert found == Rebased(node("x", "c") + node("y", "x"), "y", 2, 1, 0, 0, False)


def test_several_first_records_of_one_base_make_one_chain() -> None:
    found = on("c", node("x", "a"), node("y", "a"), node("z", "y"), node("w", "a"))
    assert parents(found.data) == {"x": "c", "y": "x", "z": "y", "w": "z"}
    assert (found.leaf, found.moved) == ("w", 3)


def test_on_an_untouched_base_nothing_is_changed() -> None:
    branch = node("x", "a") + b'{"label":1}\n' + node("y", "x")
    assert on("a", branch) == Rebased(branch, "y", 3, 0, 0, 0, True)
    assert on("a") == Rebased(b"", "a", 0, 0, 0, 0, True)


def test_a_branch_within_the_branch_is_kept() -> None:
    found = on("c", node("x", "a"), node("y", "x"), node("z", "x"))
    assert parents(found.data) == {"x": "c", "y": "x", "z": "x"} and found.moved == 1


def test_a_record_made_for_an_absent_transcript_continues_the_one_that_came() -> None:
    found = on("c", HEADER, node("x", None), node("y", "x"))
    assert found == Rebased(node("x", "c") + node("y", "x"), "y", 2, 1, 1, 0, False)


def test_without_a_leaf_the_first_record_keeps_its_parent_and_the_next_continue_it() -> None:
    found = on(None, HEADER, node("x", None), node("y", None), header=False)
    assert found == Rebased(HEADER + node("x", None) + node("y", "x"), "y", 3, 1, 0, 0, False)
    assert on(None, node("x", "gone")).clean


def test_a_record_without_a_parent_key_is_left_alone() -> None:
    line = b'{"type":"message","id":"x"}\n'
    assert on("c", line) == Rebased(line, "x", 1, 0, 0, 0, True)


def test_a_record_that_names_itself_continues_the_leaf() -> None:
    assert parents(on("c", node("x", "x")).data) == {"x": "c"}


def test_no_record_is_given_itself_as_parent() -> None:
    assert on("c", node("c", "a")).clean


def test_a_record_written_twice_keeps_one_place() -> None:
    found = on("c", node("x", "a"), node("y", "x"), node("x", "a"))
    assert path(node("c", None) + found.data) == ["c", "x"]
    circle = on("c", node("x", "a"), node("y", "x"), node("x", "y"))
    assert path(node("c", None) + circle.data) == ["c", "x"]


def test_known_records_are_left_out_and_their_children_continue_the_leaf() -> None:
    found = on("c", node("x", "a"), node("y", "x"), known={"x"})
    assert found == Rebased(node("y", "c"), "y", 1, 1, 1, 0, False)


def test_the_first_header_is_kept_where_there_is_none() -> None:
    found = on(None, HEADER, HEADER, node("x", None), HEADER, header=False)
    assert (found.data, found.dropped) == (HEADER + node("x", None), 2)
    assert on(None, HEADER, header=True).data == b""


# ---- the text


def test_escapes_spaces_order_and_line_ends_stay() -> None:
    line = b' { "x" : "\\u00e9\\/ \\"parentId\\":\\"no\\"}" , "parentId" :\t"a" ,"id":"x","m":{"parentId":"no"} } \r\n'
    assert on("c", line).data == line.replace(b'"a"', b'"c"')


@pytest.mark.parametrize("old", [b'"a"', b"null", b"7", b'{"id":"q"}', b'["a\\"]"]'])
@pytest.mark.parametrize("key", [b'"parentId"', b'"parent\\u0049d"'])
def test_the_parent_is_changed_whatever_it_is_and_however_its_key_is_written(key: bytes, old: bytes) -> None:
    line = b'{"parentId":"first","id":"x",%b:%b,"type":"message"}\n'
    assert on("c", line % (key, old)).data == line % (key, b'"c"')


def test_ids_beyond_the_ordinary_are_written_such_that_readers_find_them() -> None:
    for odd in ("x" * 200, "é\u2028", 'a"\\b', "\ud83d", "a?b"):
        first = json.dumps({"id": odd, "parentId": "a"}).encode() + b"\n"
        found = on("c", first, node("y", "a"), node("z", "y"))
        assert found.leaf == "z"
        assert json.loads(found.data.split(b"\n")[1])["parentId"] == odd
        alone = on("c", first)
        assert alone.leaf == odd
        assert json.loads(on(alone.leaf, node("w", "c")).data)["parentId"] == odd
    one, two = "x" * 100 + "1", "x" * 100 + "2"
    assert json.loads(on("c", node(one, "a"), node("y", two)).data.split(b"\n")[1])["parentId"] == one
    assert on("c", node(one, "c"), known={two}).clean


def test_what_does_not_parse_is_appended_as_it_is() -> None:
    junk = (
        b'tail of a torn record"}}\n{"id":"n","parentId":\n\xff\xfe\n\x00\x00\n\xef\xbb\xbf{"id":"b"}\n[1]\n'
    )
    found = on("c", junk, node("x", "a"))
    assert found == Rebased(junk + node("x", "c"), "x", 1, 1, 0, 6, False)


def test_blank_lines_stay_and_are_no_records() -> None:
    found = on("c", b"\n  \n", node("x", "c"), b"\r\n")
    assert (found.records, found.unparsed, found.clean) == (1, 0, True)


def test_a_last_line_without_newline_stays_without() -> None:
    whole = node("x", "a")[:-1]
    assert on("c", whole) == Rebased(node("x", "c")[:-1], "x", 1, 1, 0, 0, False)
    torn = on("c", node("x", "c"), b'{"id":"y","par')
    assert (torn.clean, torn.leaf, torn.unparsed) == (True, "x", 1)


def test_a_newline_comes_first_where_the_committed_file_lacks_it() -> None:
    assert on("c", node("x", "c"), newline=False).data == b"\n" + node("x", "c")
    assert on("c", b"\n", node("x", "c"), newline=False).clean
    assert on("c", HEADER, newline=False).data == b""
    assert on("c", newline=False).clean


def test_half_a_surrogate_pair_and_broken_utf8_do_no_harm() -> None:
    for text in (b"\\ud83d", b"\xff\xfe"):
        line = b'{"id":"x","parentId":"a","message":{"content":"' + text + b'"}}\n'
        assert on("c", line).data == line.replace(b'"a"', b'"c"')


# ---- pi: side records and leaf records


def test_a_mirror_that_leaves_the_leaf_where_it_was_leaves_it_at_the_current_one() -> None:
    """OpenClaw 2026.7: a mirrored delivery, then a leaf record back to the leaf of that moment."""
    branch = node("m", "a") + leaf("l", "m", "a", appendParentId="m", appendMode="side")
    committed = node("a", None) + node("b", "a") + node("c", "b")
    found = on("c", branch)
    expected = node("m", "c") + leaf("l", "m", "c", appendParentId="m", appendMode="side")
    assert found == Rebased(expected, "c", 2, 2, 0, 0, False)
    assert path(committed + found.data) == ["a", "b", "c"]
    assert path(committed + found.data + node("n", "m")) == ["a", "b", "c", "n"]
    assert on("a", branch).clean


def test_two_mirrors_keep_what_they_name_of_each_other() -> None:
    branch = node("m", "a") + leaf("l", "m", "a", appendParentId="m") + node("n", "m") + leaf("k", "n", "a")
    assert on("a", branch).clean
    found = on("c", branch)
    assert found.data == branch.replace(b'"a"', b'"c"') and found.leaf == "c"


def test_a_leaf_record_within_the_branch_moves_what_follows() -> None:
    found = on("c", node("x", "a"), node("y", "x"), leaf("l", "y", "x"), node("z", "a"))
    assert parents(found.data) == {"x": "c", "y": "x", "l": "y", "z": "x"}
    assert path(node("c", None) + found.data) == ["c", "x", "z"]
    assert on("c", node("x", "a"), node("y", "x"), leaf("l", "y", "x")).leaf == "x"


def test_a_first_record_behind_a_mirror_continues_the_current_leaf_and_not_the_mirror() -> None:
    found = on("c", node("m", "a"), leaf("l", "m", "a"), node("x", "q"))
    assert parents(found.data) == {"m": "c", "l": "m", "x": "c"}


def test_a_parent_that_only_the_cursor_makes_right_is_changed_where_the_writer_knew_an_older_leaf() -> None:
    branch = node("x", "a") + node("y", "x") + leaf("l", "y", "x", appendParentId="a") + node("z", "a")
    assert parents(on("c", branch).data)["z"] == "x"
    assert on("a", branch).clean


def test_who_knew_the_current_leaf_may_go_back_to_an_older_record() -> None:
    branch = leaf("l", "c", "a") + node("x", "a")
    assert on("c", branch).clean
    assert (on("c", leaf("l", "c", "a")).leaf, on("c", leaf("l", "c", None)).leaf) == ("a", None)
    assert on("c", leaf("l", "c", None), node("x", None)).clean


def test_who_did_not_know_the_current_leaf_takes_nothing_back() -> None:
    committed = node("a", None) + node("b", "a") + node("c", "b")
    for target in ("a", None):
        found = on("c", leaf("l", "b", target), node("x", target))
        assert path(committed + found.data) == ["a", "b", "c", "x"]
        assert path(committed + on("c", leaf("l", "b", target)).data) == ["a", "b", "c"]


def test_a_side_record_hangs_on_the_current_leaf_and_is_never_it() -> None:
    found = on("c", side("s", "a"), node("x", "s"), node("y", "s"))
    assert parents(found.data) == {"s": "c", "x": "s", "y": "s"}
    assert path(node("c", None) + found.data) == ["c", "s", "y"]
    assert on("c", side("s", "a")).leaf == "c"


def test_a_record_that_continues_the_leaf_behind_a_side_record_is_left_alone_where_that_is_known() -> None:
    assert on("c", node("x", "s"), onto="s").clean
    assert parents(on("c", side("t", "s"), node("x", "s"), onto="s").data) == {"t": "s", "x": "c"}
    assert parents(on("c", node("x", "s")).data) == {"x": "c"}


def test_what_points_at_ids_goes_on_pointing_there() -> None:
    points: dict[str, Any] = {"firstKeptEntryId": "a", "targetId": "a", "fromId": "a", "summary": "a"}
    found = on("c", node("x", "a", **points))
    assert found.data == node("x", "c", **points)


# ---- the other formats


def test_side_chains_of_claude_code_stay_where_they_are() -> None:
    chain = claude("s", None, isSidechain=True) + claude("t", "s", isSidechain=True)
    found = on("c", claude("x", "a"), chain, claude("y", "x"), format=CLAUDE_CODE)
    assert found.data == claude("x", "c") + chain + claude("y", "x")
    assert (found.leaf, found.moved) == ("y", 1)
    assert on("c", chain, format=CLAUDE_CODE).clean


def test_a_step_behind_a_side_chain_continues_the_conversation() -> None:
    found = on("c", claude("s", None, isSidechain=True), claude("x", "s"), format=CLAUDE_CODE)
    assert parents(found.data, CLAUDE_CODE) == {"s": None, "x": "c"}


def test_a_compacted_conversation_of_claude_code_continues_by_its_logical_parent() -> None:
    line = claude("x", None, logicalParentUuid="a", subtype="compact_boundary")
    assert on("c", line, format=CLAUDE_CODE).data == line.replace(b'"a"', b'"c"')


@pytest.mark.parametrize(
    ("format", "header", "line"),
    [
        (CODEX, {"type": "session_meta", "payload": {"id": "s"}}, {"ordinal": 4, "type": "event_msg"}),
        (GEMINI_CLI, {"sessionId": "s"}, {"id": "g", "type": "user", "parentId": "a"}),
        (LINES, None, {"id": "x", "parentId": "a"}),
    ],
    ids=["codex", "gemini-cli", "lines"],
)
def test_without_parents_a_branch_is_appended_as_it_is(
    format: Format, header: Any, line: dict[str, Any]
) -> None:
    text = json.dumps(line).encode() + b"\n"
    first = b"" if header is None else json.dumps(header).encode() + b"\n"
    found = on("old", first, text, b"junk\n", format=format)
    assert (found.data, found.dropped, found.moved) == (text + b"junk\n", 1 if first else 0, 0)
    assert found.leaf == format.parse(text).id
    kept = on(None, first, text, first, format=format, header=False)
    assert kept.data == first + text


# ---- long records


def test_a_record_beyond_the_bound_is_changed_in_its_first_bytes() -> None:
    filler = "x" * (2 * MAX_RECORD)
    found = on("c", node("x", "a", text=filler), node("y", "x"))
    assert found == Rebased(node("x", "c", text=filler) + node("y", "x"), "y", 2, 1, 0, 0, False)


def test_an_id_behind_a_long_text_is_found() -> None:
    line = claude("x", "a", message={"content": "x" * (2 * MAX_RECORD)})
    found = on("c", line, claude("y", "a"), claude("z", "y"), format=CLAUDE_CODE)
    assert parents(found.data, CLAUDE_CODE) == {"x": "c", "y": "x", "z": "y"}


def test_a_parent_behind_a_long_text_is_left_and_counted_unless_it_is_right() -> None:
    line = json.dumps({"id": "x", "text": "x" * (2 * MAX_RECORD), "parentId": "a"}).encode() + b"\n"
    found = on("c", line, node("y", "x"))
    assert found == Rebased(line + node("y", "c"), "y", 1, 1, 0, 1, False)
    right = on("c", node("a", "c"), line, node("y", "x"))
    assert (right.clean, right.unparsed) == (True, 0)


def test_a_long_torn_line_becomes_nobodys_parent() -> None:
    torn = node("x", "a", text="x" * (2 * MAX_RECORD))[:-40] + b"\n"
    found = on("c", torn, node("y", "a"))
    assert found == Rebased(torn + node("y", "c"), "y", 1, 1, 0, 1, False)


def test_a_long_record_with_a_broken_text_is_a_record() -> None:
    line = node("x", "a", text="x" * (2 * MAX_RECORD) + "\ud83d")
    assert on("c", line, node("y", "x")).data == line.replace(b'"a"', b'"c"') + node("y", "x")
    behind = claude("x", "a", message={"content": "x" * (2 * MAX_RECORD) + "\ud83d"})
    assert on("c", behind, format=CLAUDE_CODE) == Rebased(
        behind, "c", 0, 0, 0, 1, True
    )  # its id is not found


def test_a_record_of_many_megabytes_costs_no_memory_of_its_parts() -> None:
    body = b"[" + b"[]," * (8 << 20) + b"1]"
    line = b'{"id":"x","parentId":"a","message":%b}\n' % body
    tracemalloc.start()
    try:
        found = on("c", line, node("y", "a"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.moved, found.leaf) == (2, "y")
    assert peak < 6 * len(line)


def test_a_hundred_thousand_first_records_make_one_chain() -> None:
    count = 100_000
    found = on("base", *(node(f"{each:x}", "old") for each in range(count)))
    assert (found.records, found.moved) == (count, count)
    assert len(path(node("base", None) + found.data)) == count + 1


# ---- merging a replacement


def test_what_was_committed_since_follows_the_replacement() -> None:
    replacement = HEADER + node("k", None) + node("b", "k")
    since = node("x", "a") + node("y", "x")
    found = merge(replacement, since, PI)
    assert found == Rebased(node("x", "b") + node("y", "x"), "y", 2, 1, 0, 0, False)


def test_what_the_replacement_holds_already_is_left_out() -> None:
    replacement = HEADER + node("a", None) + node("x", "a")
    since = HEADER + node("x", "a") + node("y", "x") + node("z", "x")
    found = merge(replacement, since, PI)
    assert found == Rebased(node("y", "x") + node("z", "y"), "z", 2, 1, 2, 0, False)


def test_a_replacement_that_is_empty_headless_or_unended_is_merged() -> None:
    since = HEADER + node("x", "a")
    assert merge(b"", since, PI).clean
    assert merge(node("k", None), since, PI).data == HEADER + node("x", "k")
    assert merge(HEADER + node("k", None)[:-1], since, PI).data == b"\n" + node("x", "k")


def test_the_leaf_of_a_replacement_is_where_its_leaf_records_point() -> None:
    replacement = HEADER + node("a", None) + node("b", "a") + leaf("l", "b", "a", appendParentId="b")
    assert parents(merge(replacement, node("x", "q"), PI).data) == {"x": "a"}
    assert merge(replacement, node("x", "b"), PI).clean  # as pi continues the leaf there
    assert parents(merge(replacement + leaf("m", "l", "gone"), node("x", "q"), PI).data) == {"x": "a"}


def test_a_leaf_record_that_points_at_what_the_replacement_dropped_points_at_its_leaf() -> None:
    replacement = HEADER + node("k", None)
    found = merge(replacement, node("m", "k") + leaf("l", "m", "a", appendParentId="m"), PI)
    assert found.data == node("m", "k") + leaf("l", "m", "k", appendParentId="m") and found.leaf == "k"
    ignored = merge(replacement, node("m", "k") + leaf("l", "m", "k", appendParentId="a"), PI)
    assert (ignored.clean, ignored.leaf) == (True, "m")
    nowhere = merge(HEADER, leaf("l", None, "a"), PI)
    assert (nowhere.clean, nowhere.leaf) == (True, None)


def test_long_ids_are_told_apart_in_a_replacement() -> None:
    one, two = "x" * 100 + "1", "x" * 100 + "2"
    found = merge(node(one, None), node(two, "a"), PI)
    assert json.loads(found.data) == json.loads(node(two, one))


def test_without_parents_only_the_very_same_line_is_left_out() -> None:
    old, new = b'{"ordinal":1,"type":"x","payload":{}}\n', b'{"ordinal":1,"type":"y","payload":{}}\n'
    assert merge(old, old + new, CODEX).data == new
    grown = b'{"id":"g","type":"gemini","content":"more"}\n'
    assert merge(b'{"id":"g","type":"gemini"}\n', grown, GEMINI_CLI).clean
    assert merge(b'{"a":1}\n', b'{"a":1}\n', LINES).clean  # nothing says that it is the same one


# ---- the shapes of a real gateway


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


# ---- any branches on any transcript

STYLES: list[Callable[[dict[str, Any]], bytes]] = [
    lambda record: json.dumps(record).encode() + b"\n",
    lambda record: json.dumps(record, separators=(",", ":")).encode() + b"\n",
    lambda record: json.dumps(record, indent=1).replace("\n", " ").encode() + b"\r\n",
    lambda record: (
        json.dumps({**record, "text": 'é"}{\\ "parentId":"q"'}, ensure_ascii=False).encode() + b" \n"
    ),
    lambda record: json.dumps({"x": [{"parentId": 1, "parentUuid": 2}], **record}).encode() + b"\n",
    lambda record: b"{" + b'"parentId":"zz","parentUuid":"zz",' + json.dumps(record).encode()[1:] + b"\n",
    lambda record: (
        json.dumps(record).replace("parent", "par\\u0065nt").replace("leaf", "le\\u0061f").encode() + b"\n"
    ),
    lambda record: json.dumps({**record, "cut": "\ud83d"}).encode() + b"\n",
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "next",
                "next",
                "next",
                "fresh",
                "fork",
                "side",
                "back",
                "mirror",
                "rewind",
                "old",
                "junk",
                "header",
            ]
        ),
        st.integers(0, 1 << 16),
        st.integers(0, len(STYLES) - 1),
    ),
    max_size=9,
)


class Lane:
    """Writes records as an agent does that sees *seen* and then its own: the model that the rebase is held against."""

    def __init__(self, name: str, seen: bytes, format: Format) -> None:
        self.name, self.format = name, format
        records, self.view = read(seen, format)
        self.base: list[str | None] = [
            each.id for each in records if each.id and format.place(each) is Place.NODE
        ]
        self.base_leaf, self.names = self.view.leaf, self._cursor()
        self.own: list[str] = []
        self.lines: list[bytes] = []
        self.leaves = 0  # leaf records
        self.outside = 0  # those that point at what was committed

    def write(self, step: str, number: int, style: int) -> None:
        record_id = f"{self.name}{len(self.lines)}"
        cursor = self._cursor()
        if step == "junk":
            self._line(b'{"id":"%b\n' % record_id.encode())
        elif step == "header":
            if self.format is PI:
                self._line(HEADER)
        elif step == "side":
            parent = cursor if self.format.cursor else (None if number % 2 else cursor)
            self._record(record_id, parent, style, appendMode="side", isSidechain=True)
        elif step in ("back", "mirror", "rewind") and self.format.cursor:
            choice = {"back": self.own, "mirror": [self.base_leaf], "rewind": self.base}
            targets: Sequence[str | None] = choice[step]  # type: ignore[assignment]
            if targets:
                target = targets[number % len(targets)]
                self.leaves += 1
                self.outside += step != "back"
                more = {} if number % 3 else {"appendParentId": cursor}
                self._record(record_id, cursor, style, type="leaf", targetId=target, **more)
        elif step == "fork" and self.own:
            self._record(record_id, self.own[number % len(self.own)], style)
        elif step == "old" and self.base:
            self._record(record_id, self.base[number % len(self.base)], style)
        else:
            self._record(record_id, self.base_leaf if step == "fresh" else cursor, style)

    def _cursor(self) -> str | None:
        """What the agent names as the parent of its next record."""
        return (self.view.onto or self.view.leaf) if self.format.cursor else self.view.leaf

    def _record(self, record_id: str, parent: str | None, style: int, **more: Any) -> None:
        keys = ("id", "parentId") if self.format is PI else ("uuid", "parentUuid")
        if self.format is PI:
            more.pop("isSidechain", None)
        else:
            more.pop("appendMode", None)
        record = {"type": "message", keys[0]: record_id, keys[1]: parent, **more}
        self._line(STYLES[style](record))
        if more.get("type") != "leaf" and not more.get("isSidechain"):
            self.own.append(record_id)

    def _line(self, line: bytes) -> None:
        self.lines.append(line)
        self.view.add(self.format.parse(line[:-1]))

    def path(self) -> set[str | None]:
        """The branch's own records that the agent behind it remembers."""
        seen = len(self.view) - len(self.lines)
        return {self.format.parse(self.lines[each - seen]).id for each in self.view.path() if each >= seen}


def masked(line: bytes, format: Format) -> bytes:
    """*line* without its parent, and without the target of a ``leaf`` record."""
    line = format.with_parent(line, "*")
    if format.place(format.parse(line)) is Place.LEAF:
        for key, begin, end in members(line):
            if key == b"targetId":
                return line[:begin] + line[end:]
    return line


@pytest.mark.parametrize("format", [PI, CLAUDE_CODE], ids=lambda format: format.name)
@given(
    start=STEPS,
    branches=st.lists(st.tuples(st.integers(0, 30), STEPS, st.booleans()), max_size=4),
)
def test_branches_merge_into_one_history_whatever_their_base(
    format: Format, start: list[Any], branches: list[Any]
) -> None:
    first = Lane("c", b"", format)
    for step in [("header", 0, 0), ("next", 0, 0), *start]:
        first.write(*step)
    committed = on(None, *first.lines, format=format, header=False).data
    original = committed.splitlines(keepends=True)
    for number, (cut, steps, told) in enumerate(branches):
        lane = Lane(f"{number}-", b"".join(original[: cut % (len(original) + 1)]), format)
        for step in steps:
            lane.write(*step)
        _, history = read(committed, format)
        before = set(path(committed, format))
        found = rebase(
            b"".join(lane.lines), format, leaf=history.leaf, header=True, newline=True,
            onto=history.onto if told else None,
        )  # fmt: skip
        knew = {history.leaf, history.onto}
        committed += found.data
        written = [line for line in lane.lines if line != HEADER]
        got = found.data.splitlines(keepends=True)
        assert [masked(line, format) for line in got] == [masked(line, format) for line in written]
        assert found.dropped == len(lane.lines) - len(written)
        assert found.unparsed == sum(format.parse(line[:-1]).invalid for line in got)
        assert found.records == len(got) - found.unparsed
        assert found.moved == sum(one != other for one, other in zip(got, written, strict=True))
        for one, other in zip(got, written, strict=True):
            record = format.parse(other[:-1])
            if record.parent in lane.own:
                assert format.parse(one[:-1]).parent == record.parent
            if record.target in lane.own:
                assert format.parse(one[:-1]).target == record.target
        now, history = read(committed, format)
        assert found.leaf == history.leaf
        reached = set(path(committed, format))
        assert lane.path() <= reached
        if (
            not lane.outside or not {lane.base_leaf, lane.names} & knew
        ):  # who names the current leaf may take it back
            assert before <= reached
        ids = [each.id for each in now if each.id]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("format", [PI, CLAUDE_CODE], ids=lambda format: format.name)
@given(start=STEPS, steps=STEPS)
def test_on_its_untouched_base_any_branch_is_clean(
    format: Format, start: list[Any], steps: list[Any]
) -> None:
    first = Lane("c", b"", format)
    for step in start:
        first.write(*step)
    committed = on(None, *first.lines, format=format, header=False).data
    lane = Lane("x", committed, format)
    for step in steps:
        if step[0] not in ("fresh", "old", "header"):  # these do not continue what their writer sees
            lane.write(*step)
    _, history = read(committed, format)
    found = on(history.leaf, *lane.lines, format=format, onto=history.onto)
    assert found.clean and found.leaf == lane.view.leaf


@pytest.mark.parametrize("format", [PI, CLAUDE_CODE], ids=lambda format: format.name)
@given(start=STEPS, steps=STEPS, drop=st.sets(st.integers(0, 12)), also=st.sets(st.integers(0, 9)))
def test_a_replacement_and_what_came_since_hold_each_record_once_on_one_path(
    format: Format, start: list[Any], steps: list[Any], drop: set[int], also: set[int]
) -> None:
    first = Lane("c", b"", format)
    for step in [("header", 0, 0), ("next", 0, 0), *start]:
        first.write(*step)
    base = on(None, *first.lines, format=format, header=False).data
    lane = Lane("x", base, format)
    for step in steps:
        lane.write(*step)
    kept = [line for number, line in enumerate(base.splitlines(keepends=True)) if number not in drop]
    copied = [line for number, line in enumerate(lane.lines) if number in also]
    replacement = b"".join(kept + [line for line in copied if line != HEADER])
    found = merge(replacement, b"".join(lane.lines), format)
    _, kept_history = read(replacement, format)
    records, history = read(replacement + found.data, format)
    ids = [each.id for each in records if each.id]
    assert set(ids) == {each.id for each in read(replacement + b"".join(lane.lines), format)[0] if each.id}
    assert len(ids) == len(set(ids))
    assert sum(each.type == "session" for each in records) <= 1
    assert found.leaf == history.leaf
    if not lane.leaves or not (also or {lane.base_leaf, lane.names} & {kept_history.leaf, kept_history.onto}):
        assert set(path(replacement, format)) <= set(path(replacement + found.data, format))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(
    branch=STREAMS | st.binary(max_size=200),
    base=st.none() | st.text(max_size=3) | st.just("\ud83d"),
    header=st.booleans(),
    newline=st.booleans(),
    since=STREAMS,
)
def test_no_bytes_are_lost_or_make_it_raise(
    format: Format, branch: bytes, base: str | None, header: bool, newline: bool, since: bytes
) -> None:
    found = rebase(branch, format, leaf=base, header=header, newline=newline)
    lines, got = branch.split(b"\n"), found.data.split(b"\n")
    if found.data and not newline and not branch.startswith(b"\n"):
        assert got.pop(0) == b""
    if not found.dropped:
        assert [masked(line, format) for line in got] == [masked(line, format) for line in lines]
    assert found.clean == (found.data == branch)
    assert sum(bool(line.strip()) for line in lines) == found.records + found.unparsed + found.dropped
    merge(branch, since, format)
