"""Examples: operations described in a policy, or beside it, and what it is to say of them. Pure.

Those beside ``NAME.toml`` stand in ``NAME.examples.toml``: ``version = 1`` and `[[examples]]`, nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from guardfs.lanes.writer import Process, Writer
from guardfs.policy.check import check
from guardfs.policy.conditions import ResolveId
from guardfs.policy.decide import Decider
from guardfs.policy.explain import Explanation, Trial, explain
from guardfs.policy.facts import Facts
from guardfs.policy.files import Files
from guardfs.policy.model import Example, ExampleEvent, ExampleRecord, Policy
from guardfs.policy.places import Places
from guardfs.policy.problem import Problem, key_text
from guardfs.policy.read import read
from guardfs.transcript.records import RecordMeta

_KEYS = ("version", "examples")
_STUB = {"version": 1, "rules": [{"name": "stub", "verdict": "allow"}]}


class Result(msgspec.Struct, frozen=True):
    """What became of one example.

    wrong: what came otherwise than expected ("lane", "rule", "verdict"); none: it passed. why: the condition that
    decided it, in one line; "" if it passed.
    """

    name: str
    expected: dict[str, str]
    got: dict[str, str]
    wrong: tuple[str, ...]
    why: str

    @property
    def passed(self) -> bool:
        """Whether all came as expected."""
        return not self.wrong


def beside(path: str) -> str:
    """Where the examples of the policy in *path* stand, if they do not stand in it."""
    return path.removesuffix(".toml") + ".examples.toml"


def read_examples(data: bytes) -> tuple[tuple[Example, ...], Places, tuple[Problem, ...]]:
    """The examples of a file beside a policy, or all its problems. Never raises."""
    document = read(data)
    places, problems = document.places, list(document.problems)
    if not problems:
        for key in document.values:
            if key not in _KEYS:
                line, column = places.key((key,))
                problems.append(
                    Problem(line, column, key_text((key,)), "does not belong here", "only [[examples]] do")
                )
        values = {key: document.values[key] for key in _KEYS if key in document.values}
        problems += check({**_STUB, **values}, places)
    if problems:
        return (), places, tuple(sorted(problems, key=lambda problem: problem.order))
    examples = msgspec.convert(document.values.get("examples", []), tuple[Example, ...])
    for index, example in enumerate(examples):
        if example.lane is None and example.rule is None and example.verdict is None:
            line, column = places.key(("examples", index))
            problems.append(
                Problem(
                    line, column, f"examples[{index}]", "expects nothing", "name a lane, a rule or a verdict"
                )
            )
    return examples if not problems else (), places, tuple(problems)


class Names:
    """Numbers of users and groups on any machine: a name that this one does not know gets a number that nobody has,
    so that an example means the same everywhere."""

    _NOBODY = 1 << 32

    def __init__(self, ids: ResolveId | None = None) -> None:
        self._ids = ids
        self._unknown: dict[tuple[str, str], int] = {}

    def __call__(self, kind: Literal["user", "group"], name: str) -> int:
        """The number of *name*."""
        known = self._ids(kind, name) if self._ids is not None else None
        if known is not None:
            return known
        return self._unknown.setdefault((kind, name), self._NOBODY + len(self._unknown))


def facts_of(event: ExampleEvent, files: Files, ids: ResolveId) -> Facts:
    """The operation that *event* describes."""
    process, claim = event.process, event.claim
    path = _raw(event.path)
    to = None if event.to is None else _raw(event.to)
    writer = Writer(
        tid=1 if process.main else 2,
        tgid=1,
        main=process.main,
        comm=process.thread,
        uid=_number("user", process.user, ids),
        gid=_number("group", process.group, ids),
        known="ok",
        process=Process(
            tgid=1,
            start=0,
            exe=process.exe,
            args=process.args,
            parents=tuple((0, name) for name in process.ancestors),
            cgroup=None,
            container=process.container,
            runtime=None,
            pidns=None,
            environ_lane=None if claim is None else claim.environment,
        ),
    )
    return Facts(
        writer=writer,
        operation=event.operation,
        file=event.file or files.of(path, to),
        path=path,
        to=to,
        record=None if event.record is None else _record(event.record),
        fence=event.fence,
        continues=None if event.record is None else event.record.continues,
        lock=event.lock,
        claim=None if claim is None else claim.attribute,
    )


def run(policy: Policy, examples: Sequence[Example], ids: ResolveId | None = None) -> list[Result]:
    """Try each of *examples* on *policy*. ids: the machine's users and groups; None: none are known."""
    names = Names(ids)
    decider, files = Decider(policy, names), Files(policy.transcripts)
    return [_try(decider, example, facts_of(example.event, files, names)) for example in examples]


def _try(decider: Decider, example: Example, facts: Facts) -> Result:
    wanted = {"lane": example.lane, "rule": example.rule, "verdict": example.verdict}
    expected: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    decision = decider.decide(facts)
    got: dict[str, str] = {"lane": decision.lane, "rule": decision.rule, "verdict": decision.verdict}
    wrong = tuple(key for key, value in expected.items() if got[key] != value)
    why = _why(decider, explain(decider, facts), expected, wrong[0]) if wrong else ""
    return Result(example.name, expected, got, wrong, why)


def _why(decider: Decider, found: Explanation, expected: dict[str, str], wrong: str) -> str:
    if wrong == "verdict":
        return f"rule {found.rule!r}: {found.rules[-1].decisive()}" if found.rules else ""
    trials, names, came = (
        (found.lanes, decider.lane_names, found.lane)
        if wrong == "lane"
        else (found.rules, decider.rules, found.rule)
    )
    meant = expected[wrong]
    if meant not in names:
        near = difflib.get_close_matches(meant, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return found.lanes[-1].decisive() if wrong == "lane" and not names else f"no {wrong} {meant!r}{hint}"
    tried = next((trial for trial in trials if trial.name == meant), None)
    if tried is None:
        return _before(wrong, came, trials)
    if tried.matched:  # and a lane within it, too
        return _before(wrong, came, trials)
    return f"{wrong} {meant!r}: {tried.decisive()}"


def _before(kind: str, came: str, trials: Sequence[Trial]) -> str:
    first = next((trial for trial in trials if trial.name == came), None)
    return f"{kind} {came!r} matched: {first.decisive()}" if first is not None else f"no {kind} matched"


def _record(record: ExampleRecord) -> RecordMeta:
    return RecordMeta(record.type, record.role, record.id, None, record.provider, record.model)


def _number(kind: Literal["user", "group"], value: int | str, ids: ResolveId) -> int:
    if isinstance(value, int):
        return value
    number = ids(kind, value)
    return -1 if number is None else number


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
