"""What no schema can say: names, order, conditions that never hold."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guardfs.policy.reach import covers
from guardfs.policy.values import glob_slip
from tests.unit.policy_tools import GOOD, texts, with_rule

END = '[[rules]]\nname = "rest"\nverdict = "allow"\n'


def lanes(text: str) -> list[str]:
    return texts("version = 1\n" + text + END)


def test_a_good_policy_has_no_problems() -> None:
    assert texts(GOOD) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[lanes]]\nname = "a"\nfile = "lock"\n[[lanes]]\nname = "a"\n',
         "p:6:8: lanes[1].name: the lane 'a' is there already, in line 2; give it another name, or put both into one"),
        ('[[lanes]]\nname = "gateway"\n[[lanes]]\nname = "a"\nwithin = "gatway"\n',
         "p:6:10: lanes[1].within: no lane is called 'gatway'; did you mean 'gateway'?"),
        ('[[lanes]]\nname = "a"\nwithin = "a"\n',
         "p:4:10: lanes[0].within: a lane cannot lie within itself; name the lane around it"),
        ('[[lanes]]\nname = "b"\nwithin = "a"\n[[lanes]]\nname = "a"\n',
         "p:4:10: lanes[0].within: the lane 'a' comes later, in line 5; put it above this one"),
        ('[[lanes]]\nname = "a"\n[[lanes]]\nname = "b"\nwithin = "a"\n[[lanes]]\nname = "c"\nwithin = "b"\n',
         "p:9:10: lanes[2].within: no lane is called 'b'; did you mean 'a:b'?"),
        ('[[lanes]]\nname = "a"\nprocess.exe = "*/n*"\n[[lanes]]\nname = "b"\nprocess.exe = "*/node"\nfile = "lock"\n',
         "p:6:8: lanes[1].name: is never reached: the lane 'a' in line 2 takes all that it asks for; "
         "put it above that one, or leave it out"),
        ('[[lanes]]\nname = "a"\nprocess.exe = "node"\n',
         "p:4:15: lanes[0].process.exe: 'node' never matches: an executable is a whole path; write '*/node'"),
        ('[[lanes]]\nname = "a"\nprocess = {}\n',
         "p:4:11: lanes[0].process: asks nothing; leave it out, or ask something"),
        ('[[lanes]]\nname = "a"\nunless = {}\n',
         "p:4:10: lanes[0].unless: asks nothing, so it always holds; leave it out, or ask something"),
        ('[[lanes]]\nname = "a"\nclaim = "x"\n',
         "p:4:9: lanes[0].claim: no claim is believed, so this never holds; say in [claims] which are"),
        ('[[lanes]]\nname = "a"\nprocess.thread = "openclaw-gateway"\n',
         "p:4:18: lanes[0].process.thread: 'openclaw-gateway' never matches: the kernel keeps 15 bytes of a name; "
         "write 'openclaw-gatewa'"),
    ],
)  # fmt: skip
def test_a_lane_that_makes_no_sense(text: str, expected: str) -> None:
    assert lanes(text) == [expected]


def test_two_lanes_may_have_one_name_within_different_lanes() -> None:
    outer = '[[lanes]]\nname = "a"\nfile = "lock"\n[[lanes]]\nname = "b"\n'
    inner = '[[lanes]]\nname = "x"\nwithin = "a"\n[[lanes]]\nname = "x"\nwithin = "b"\n'
    assert lanes(outer + inner) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('verdict = "deny"\nerrno = "EACCESS"\nwhen.file = "lock"',
         "p:5:9: rules[0].errno: Linux knows no error 'EACCESS'; did you mean 'EACCES'?"),
        ('verdict = "allow"\nerrno = "EACCES"\nwhen.file = "lock"',
         "p:5:9: rules[0].errno: a rule that says 'allow' gives no error; only \"deny\" does"),
        ('verdict = "stage"\non_timeout = "deny"\nwhen.file = "lock"',
         "p:5:14: rules[0].on_timeout: a rule that says 'stage' waits for nothing; only \"wait\" does"),
        ('verdict = "wait"\nwhen.operation = "rename"',
         "p:4:11: rules[0].verdict: rename cannot wait: it would hold up the directory for everybody; say \"stage\""),
        ('verdict = "stage"\nwhen.operation = "look"\nwhen.record.type = "x"',
         "p:6:6: rules[0].when.record: look writes no record, so this never holds; leave one of the two out"),
        ('verdict = "stage"\nwhen = { operation = "append", to = "x" }',
         "p:5:37: rules[0].when.to: append has no new name, so this never holds; "
         'it belongs to operation = "rename" or "attributes" (links)'),
        ('verdict = "stage"\nwhen.path = ["ok", "a[b"]',
         "p:5:20: rules[0].when.path[1]: in the glob 'a[b', a '[' is not closed; "
         "write [[] where the character [ is meant"),
        ('verdict = "stage"\nwhen.path = "/x"',
         "p:5:13: rules[0].when.path: '/x' never matches: paths begin below the sessions directory; "
         "leave the beginning out"),
        ('verdict = "stage"\nwhen.operation = []',
         "p:5:18: rules[0].when.operation: the list is empty, so this never holds; "
         "leave the key out, or name something"),
        ('verdict = "stage"\nwhen.lane = "nobody"',
         "p:5:13: rules[0].when.lane: no lane is called 'nobody'; a program is meant by process = { exe = ... }"),
        ('verdict = "stage"\nwhen.lane = "no*"',
         "p:5:13: warning: rules[0].when.lane: no lane of this policy is like 'no*'; "
         "a program that no lane matches is better meant by process = { exe = ... }"),
        ('verdict = "stage"',
         "p:6:8: rules[1].name: is never reached: the rule 'x' in line 2 takes everything; "
         "put it above that one, or leave it out"),
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense(rule: str, expected: str) -> None:
    assert texts(with_rule(rule)) == [expected]


@pytest.mark.parametrize("name", ["mirror", "gateway:miror", "miror"])
def test_an_unknown_lane_is_answered_with_the_one_that_is_meant(name: str) -> None:
    (line,) = texts(GOOD.replace('"gateway:mirror"', f'"{name}"'))
    assert line == f"p:12:17: rules[0].when.lane: no lane is called '{name}'; did you mean 'gateway:mirror'?"


def test_where_claims_are_believed_a_rule_may_name_any_lane() -> None:
    assert (
        texts(with_rule('verdict = "stage"\nwhen.lane = "cron"', '[claims]\nenvironment = ["cron"]\n')) == []
    )


def test_the_last_rule_has_no_conditions() -> None:
    (line,) = texts('version = 1\n[[rules]]\nname = "x"\nverdict = "allow"\nwhen.file = "lock"\n')
    assert line.startswith("p:5:1: rules[0].when: the last rule must decide all that is left")


def test_a_rule_name_is_used_once() -> None:
    (line,) = texts(with_rule('verdict = "stage"\nwhen.file = "lock"').replace('"rest"', '"x"'))
    assert line.startswith("p:7:8: rules[1].name: a rule 'x' is there already, in line 2")


def test_an_entry_with_unless_hides_nothing() -> None:
    text = '[[lanes]]\nname = "a"\nfile = "lock"\nunless = { path = "x" }\n[[lanes]]\nname = "b"\nfile = "lock"\n'
    assert lanes(text) == []


def test_a_user_that_nobody_knows_is_a_warning() -> None:
    text = with_rule('verdict = "stage"\nwhen.process = { user = ["root", "nosuch"], group = 7 }')
    (line,) = texts(text, known=lambda kind, name: name == "root")
    assert line == (
        "p:5:34: warning: rules[0].when.process.user[1]: this machine knows no user 'nosuch', so this never holds"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('fence.idle_timeout = "0s"', "'0s' is no time at all"),
        ('fence.wait_timeout = "31d"', "'31d' is longer than a month"),
        ('fence.idle_timeout = "1s"', "'1s' is very short: a fence ends while the model still thinks"),
        ('audit.max_size = "0"', "a log of no size"),
        ('transcripts.include = ["a/b"]', "'a/b' has a directory in it"),
        ("transcripts.include = []", "nothing is a transcript"),
        ('transcripts.exclude = ["*"]', "'*' excludes everything"),
        ('transcripts.registry = "../x"', "'../x' is no file name"),
        ('transcripts.lock = "{transcript}"', "the lock file of a transcript is another file"),
    ],
)
def test_settings_that_make_no_sense(line: str, expected: str) -> None:
    (said,) = texts(f"{line}\nversion = 1\n{END}")
    assert expected in said and said.startswith("p:1:")


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ('name = "e"\nevent = {}', "examples[0].name: says not what it expects; add lane, rule or verdict"),
        ('name = "e"\nevent = {}\nrule = "rst"', "examples[0].rule: no rule is called 'rst'; did you mean 'rest'?"),
        ('name = "e"\nevent = {}\nlane = "gatewy"',
         "examples[0].lane: no lane is called 'gatewy'; did you mean 'gateway'?"),
    ],
)  # fmt: skip
def test_an_example_that_expects_nothing_or_something_unknown(example: str, expected: str) -> None:
    (line,) = texts(GOOD + "[[examples]]\n" + example)
    assert line.endswith(expected)


def test_an_example_may_expect_the_lane_of_a_program() -> None:
    assert texts(GOOD + '[[examples]]\nname = "e"\nevent = {}\nlane = "rsync"') == []


@pytest.mark.parametrize("glob", ["[a-z]*", "[!a]", "[]]", "[!]]", "a]b", "[[]x", "*", "[-a]", "[a-]"])
def test_a_glob_with_right_brackets_is_no_slip(glob: str) -> None:
    assert glob_slip(glob, "record.type") is None


@pytest.mark.parametrize("glob", ["[", "x[]", "[!]", "[z-a]", "[a]["])
def test_a_glob_with_wrong_brackets_is_a_slip(glob: str) -> None:
    assert glob_slip(glob, "record.type") is not None


GLOBS = st.text(st.sampled_from("ab*?[]!-/"), min_size=1, max_size=5)


@given(GLOBS, GLOBS, st.lists(st.text(st.sampled_from("ab[]!-/?*"), max_size=6), max_size=40))
def test_a_glob_is_called_wider_only_if_it_is(first: str, then: str, names: list[str]) -> None:
    assume(covers({"path": (first,)}, {"path": (then,)}))
    for name in names:
        assert fnmatch.fnmatchcase(name, first) or not fnmatch.fnmatchcase(name, then)
