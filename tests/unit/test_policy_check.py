"""The form of a policy: every problem at once, in plain words, and the schema agrees."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.policy.check import check
from guardfs.policy.model import Policy
from guardfs.policy.places import Places
from guardfs.policy.schema import schema
from tests.unit.policy_tools import GOOD, problems, texts, with_rule


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('mode = "recrod"',
         "p:1:8: mode: 'recrod' is none of its values; did you mean 'record'? there are enforce, record"),
        ("mode = 1", "p:1:8: mode: expected a text, found the number 1; there are enforce, record"),
        ("lanees = 3", "p:1:1: lanees: there is no key 'lanees' here; did you mean 'lanes'?"),
        ('idle_timeout = "3m"', "p:1:1: idle_timeout: there is no key 'idle_timeout' here; it belongs under [fence]"),
        ("fence.mode = 1", "p:1:7: fence.mode: there is no key 'mode' here; "
         "it belongs to the file's top: put it above the first [table]"),
        ('fence.idle_timeout = "30 s"', "p:1:22: fence.idle_timeout: '30 s' is no duration; "
         'write it like "500ms", "30s" or "15m"'),
        ('fence.idle_timeout = "5m\\n"', "p:1:22: fence.idle_timeout: '5m\\n' is no duration; "
         'write it like "500ms", "30s" or "15m"'),
        ('audit.keep = "10"', "p:1:14: audit.keep: expected a number, found the text '10'; write 10 without quotes"),
        ("audit.keep = 1001", "p:1:14: audit.keep: 1001 is too large; the most is 1000"),
        ("audit.required = 1", "p:1:18: audit.required: expected true or false, found the number 1"),
        ("fence = 2001-01-01", "p:1:9: fence: expected a table, found a date or time"),
        ('transcripts.include = "*"',
         "p:1:23: transcripts.include: expected a list of texts, found the text '*'; write [\"*\"]"),
        ('transcripts.lock = "x"', "p:1:20: transcripts.lock: 'x' is no name for a lock file; "
         "write \"{transcript}\" where the transcript's name stands, or \"\""),
        ("lanes.name = 'x'", "p:1:1: lanes: expected a list of tables, found a table; "
         "each of them begins with [[lanes]], in two pairs of brackets"),
    ],
)  # fmt: skip
def test_a_slip_is_said_in_plain_words(line: str, expected: str) -> None:
    assert texts(f'{line}\nversion = 1\n[[rules]]\nname = "x"\nverdict = "allow"\n') == [expected]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('verdict = "stge"', "p:4:11: rules[0].verdict: 'stge' is none of its values; did you mean 'stage'? "
         "there are allow, deny, stage, wait"),
        ('verdict = "allow"\nlane = "x"',
         "p:5:1: rules[0].lane: there is no key 'lane' here; it belongs into when = { lane = ... }"),
        ('verdict = "allow"\nwhen.exe = "x"', "p:5:6: rules[0].when.exe: there is no key 'exe' here; "
         "it belongs into process = { exe = ... }"),
        ('verdict = "allow"\nwhen.process.operation = "look"', "p:5:14: rules[0].when.process.operation: "
         "there is no key 'operation' here; it belongs one level higher"),
        ('verdict = "allow"\nwhen.path = []',
         "p:5:13: rules[0].when.path: the list is empty; leave the key out, or name something"),
        ('verdict = "allow"\nwhen.path = ["a", 5]',
         "p:5:19: rules[0].when.path[1]: expected a text, found the number 5; "
         'write it in quotes: "5"'),
        ("", "p:2:1: rules[0]: 'verdict' is missing; say what happens: \"allow\", \"stage\", \"wait\" or \"deny\""),
        ('verdict = "deny"\nerrno = "eacces"',
         "p:5:9: rules[0].errno: 'eacces' is no name of an error; write it like \"EACCES\""),
    ],
)  # fmt: skip
def test_a_slip_in_a_rule_is_said_in_plain_words(rule: str, expected: str) -> None:
    assert texts(with_rule(rule)) == [expected]


def test_what_is_missing_is_said_with_how_to_write_it() -> None:
    assert texts("") == [
        "p:1:1: 'version' is missing; begin the file with: version = 1",
        "p:1:1: there are no rules; end the file with: [[rules]], "
        'name = "everything else", verdict = "allow"',
    ]


def test_a_newer_version_is_said_to_be_newer_and_nothing_else_is_guessed() -> None:
    assert texts("version = 2\nnew_key = 1") == [
        "p:1:11: version: version 2 is newer than this guardfs understands (1); update guardfs"
    ]


def test_all_problems_are_said_at_once() -> None:
    text = GOOD.replace("[[lanes]]", "[[lanes]]\nx = 1").replace('verdict = "stage"', "verdict = 7")
    assert [problem.key for problem in problems(text)] == ["lanes[0].x", "lanes[1].x", "rules[0].verdict"]


# ---- the walk and the JSON Schema agree


def ecma_pattern(validator: Any, pattern: str, value: Any, about: Any) -> Iterator[Any]:
    """As JSON Schema means it: "$" is the end. Python's `$` also stands before a last newline."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not fit {pattern}")


VALIDATOR = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": ecma_pattern}
)(schema())

FULL = tomllib.loads("""
version = 1
mode = "enforce"
description = "d"
[transcripts]
include = ["*.jsonl"]
exclude = ["x"]
format = "pi"
lock = "{transcript}.lock"
registry = "r"
[fence]
protocol = "none"
idle_timeout = "1.5h"
on_timeout = "deny"
[claims]
environment = ["*"]
[audit]
level = "all"
required = true
max_size = "1GiB"
keep = 0
[[lanes]]
name = "a"
within = "b"
process = { exe = ["*/x", "y"], main = false, user = [1, "root"], group = 5, container = "?*" }
operation = ["append"]
file = "lock"
record = { id = ["uuid", "other"], continues = "leaf" }
lock = "own"
unless = { claim = "x", to = "y" }
[[rules]]
name = "r"
verdict = "deny"
errno = "EACCES"
on_timeout = "allow"
when = { lane = ["a", "b"], fence = ["own"] }
[[examples]]
name = "e"
event.operation = "look"
event.process = { user = "u", args = ["a"] }
event.record = { id = "x" }
event.claim = { attribute = "a" }
lane = "x"
""")

JUNK = st.one_of(
    st.sampled_from(
        ["", "x", "EX", "5m", "5m\n", "0", "a:b", "x" * 65, "x" * 201, "x" * 1025, "uuid", "append", "allow", "own",
         "none", "{transcript}", "\n", "other", "lock", "é"]
    ),
    st.sampled_from([-1, 0, 1, 2, 1000, 1001, 2**62, 1.5, float("inf"), True, False]),
    st.sampled_from([[], {}, [[]], ["x"], [""], [1], [{}], ["uuid", "uuid"], {"name": "x"}, ["x"] * 257, [True]]),
)  # fmt: skip


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [spot for key, item in inner for spot in spots(item, (*path, key))]


SPOTS = spots(FULL)


@given(st.data())
def test_the_walk_accepts_what_the_schema_accepts(data: st.DataObject) -> None:
    values = copy.deepcopy(FULL)
    for spot in data.draw(st.lists(st.sampled_from(SPOTS), min_size=1, max_size=2)):
        *way, last = spot
        table: Any = values
        try:
            for key in way:
                table = table[key]
            what = data.draw(st.sampled_from(["replace", "remove", "add"]))
            if what == "replace":
                table[last] = data.draw(JUNK)
            elif what == "remove":
                del table[last]
            else:
                table[data.draw(st.sampled_from(["zz", "name", "lane", "exe", "process", "verdict"]))] = (
                    data.draw(JUNK)
                )
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken the place away
    found = list(check(values, Places()))
    assert bool(found) == (not VALIDATOR.is_valid(values)), found
    if not found:
        msgspec.convert(values, Policy)


def test_the_full_policy_of_this_test_is_good() -> None:
    assert list(check(FULL, Places())) == []
    VALIDATOR.validate(FULL)
    assert {"lanes", "rules", "examples"} <= FULL.keys()
