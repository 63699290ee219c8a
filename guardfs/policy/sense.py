"""What a schema cannot say: names that nobody has, entries that nothing reaches, conditions that never hold. Pure."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from guardfs.policy.model import Lane, Policy
from guardfs.policy.places import Path, Places
from guardfs.policy.problem import Problem, Severity, key_text, quoted
from guardfs.policy.reach import asks, covers
from guardfs.policy.values import values

Known = Callable[[Literal["user", "group"], str], bool]
"""Whether the machine knows a user or group of this name."""


def sense(policy: Policy, places: Places, known: Known | None = None) -> Iterator[Problem]:
    """Every problem of sense in a policy whose form is right."""
    sensible = _Sense(policy, places)
    yield from sensible.lanes()
    yield from sensible.rules()
    yield from sensible.examples()
    for path, what, mend, severity in values(policy, known):
        yield sensible.problem(path, what, mend, severity)


def whole_names(policy: Policy) -> list[str]:
    """The whole name of each lane, in the order of the file."""
    return [f"{lane.within}:{lane.name}" if lane.within else lane.name for lane in policy.lanes]


class _Sense:
    def __init__(self, policy: Policy, places: Places) -> None:
        self.policy = policy
        self.places = places
        self.names = whole_names(policy)
        self.claims = (*policy.claims.environment, *policy.claims.attribute)

    def problem(self, path: Path, what: str, mend: str = "", severity: Severity = "error") -> Problem:
        line, column = self.places.value(path)
        return Problem(line, column, key_text(path), what, mend, severity)

    def line(self, path: Path) -> int:
        return self.places.key(path)[0]

    def lanes(self) -> Iterator[Problem]:
        first: dict[str, int] = {}
        levels: dict[str, list[int]] = {}
        for index, lane in enumerate(self.policy.lanes):
            name = self.names[index]
            if name in first:
                line = self.line(("lanes", first[name]))
                what = f"the lane {quoted(name)} is there already, in line {line}"
                yield self.problem(
                    ("lanes", index, "name"), what, "give it another name, or put both into one"
                )
            else:
                if lane.within is not None and lane.within not in first:
                    yield self._no_lane_around(index, lane)
                first[name] = index
                yield from self._reach("lanes", index, levels.setdefault(lane.within or "", []))

    def _no_lane_around(self, index: int, lane: Lane) -> Problem:
        path = ("lanes", index, "within")
        assert lane.within is not None
        if lane.within == self.names[index] or (lane.within == lane.name and lane.within not in self.names):
            return self.problem(path, "a lane cannot lie within itself", "name the lane around it")
        if lane.within in self.names:
            line = self.line(("lanes", self.names.index(lane.within)))
            return self.problem(
                path, f"the lane {quoted(lane.within)} comes later, in line {line}", "put it above this one"
            )
        return self.problem(
            path, f"no lane is called {quoted(lane.within)}", self._mean(lane.within, self.names[:index])
        )

    def _mean(self, name: str, among: list[str]) -> str:
        """What the operator may mean by the lane *name*."""
        inner = [whole for whole in among if whole.rpartition(":")[2] == name]
        near = inner or difflib.get_close_matches(name, among, 1)
        if not near:
            short = {whole.rpartition(":")[2]: whole for whole in among}
            near = [short[word] for word in difflib.get_close_matches(name.rpartition(":")[2], short, 1)]
        return f"did you mean {' or '.join(map(quoted, near[:3]))}?" if near else ""

    def _reach(self, table: Literal["lanes", "rules"], index: int, level: list[int]) -> Iterator[Problem]:
        """Whether an earlier entry of the same *level* leaves nothing for this one."""
        entries = self.policy.lanes if table == "lanes" else self.policy.rules
        for other in level:
            entry = entries[other]
            if entry.unless is None and covers(self._asks(table, other), self._asks(table, index)):
                kind = table[:-1]
                line = self.line((table, other))
                whatever = "all that it asks for" if self._asks(table, other) else "everything"
                what = f"is never reached: the {kind} {quoted(entry.name)} in line {line} takes {whatever}"
                yield self.problem((table, index, "name"), what, "put it above that one, or leave it out")
                break
        level.append(index)

    def _asks(self, table: Literal["lanes", "rules"], index: int) -> dict[str, tuple[str | int | bool, ...]]:
        return asks(self.policy.lanes[index] if table == "lanes" else self.policy.rules[index].when)

    def rules(self) -> Iterator[Problem]:
        first: dict[str, int] = {}
        level: list[int] = []
        last = len(self.policy.rules) - 1
        for index, rule in enumerate(self.policy.rules):
            path: Path = ("rules", index)
            if rule.name in first:
                line = self.line(("rules", first[rule.name]))
                what = f"a rule {quoted(rule.name)} is there already, in line {line}"
                yield self.problem(
                    (*path, "name"), what, "give it another name: events name the rule that decided"
                )
            first.setdefault(rule.name, index)
            yield from self._reach("rules", index, level)
            if index == last and (asks(rule.when) or rule.unless is not None):
                key = "when" if asks(rule.when) else "unless"
                mend = (
                    'end with a rule without conditions, such as: name = "everything else", verdict = "allow"'
                )
                yield self.problem(
                    (*path, key), "the last rule must decide all that is left, so it has no conditions", mend
                )
            for table, conditions in (("when", rule.when), ("unless", rule.unless)):
                for position, glob in enumerate(asks(conditions).get("lane", ())):
                    here = (*path, table, "lane")
                    is_list = not isinstance(getattr(conditions, "lane", None), str)
                    yield from self._lane((*here, position) if is_list else here, str(glob))

    def _lane(self, path: Path, glob: str) -> Iterator[Problem]:
        if glob in self.names or self._claimed(glob):
            return
        if not any(char in glob for char in "*?["):
            mend = self._mean(glob, self.names) or "a program is meant by process = { exe = ... }"
            yield self.problem(path, f"no lane is called {quoted(glob)}", mend)
        elif not any(fnmatch.fnmatchcase(name, glob) for name in self.names):
            what = f"no lane of this policy is like {quoted(glob)}"
            mend = "a program that no lane matches is better meant by process = { exe = ... }"
            yield self.problem(path, what, mend, "warning")

    def _claimed(self, lane: str) -> bool:
        """Whether a writer can claim a lane that is like *lane*. What is claimed has no colon, so it is in no other."""
        if any(char in lane for char in "*?["):
            return bool(self.claims)
        return ":" not in lane and any(fnmatch.fnmatchcase(lane, glob) for glob in self.claims)

    def examples(self) -> Iterator[Problem]:
        rules = [rule.name for rule in self.policy.rules]
        names = Counter(example.name for example in self.policy.examples)
        seen: dict[str, int] = {}
        for index, example in enumerate(self.policy.examples):
            path: Path = ("examples", index)
            if names[example.name] > 1 and example.name in seen:
                line = self.line(("examples", seen[example.name]))
                what = f"an example {quoted(example.name)} is there already, in line {line}"
                yield self.problem((*path, "name"), what, "give it another name")
            seen.setdefault(example.name, index)
            if example.lane is example.rule is example.verdict is None:
                yield self.problem((*path, "name"), "says not what it expects", "add lane, rule or verdict")
            if example.rule is not None and example.rule not in rules:
                near = difflib.get_close_matches(example.rule, rules, 1)
                mend = (
                    f"did you mean {quoted(near[0])}?" if near else "it is the name of an entry of [[rules]]"
                )
                yield self.problem((*path, "rule"), f"no rule is called {quoted(example.rule)}", mend)
            # a lane that is not declared can be a program's own name, or a claim
            if (
                example.lane is not None
                and example.lane not in self.names
                and not self._claimed(example.lane)
            ):
                mend = self._mean(example.lane, self.names)
                if mend:
                    what = f"no lane is called {quoted(example.lane)}"
                    yield self.problem((*path, "lane"), what, mend, "warning")
