"""Branches on a transcript that has gone on: one history, every record once, and no byte changed but parents."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from guardfs.transcript.formats import CLAUDE_CODE, CODEX, GEMINI_CLI, LINES, PI, Format
from guardfs.transcript.meta import MAX_RECORD
from guardfs.transcript.rebase import Rebased, merge
from tests.unit.rebase_tools import HEADER, claude, leaf, node, on, parents, path, side

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
