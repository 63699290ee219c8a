"""From the bytes of a policy file to the policy, or to all that is wrong with it. Pure."""

from __future__ import annotations

import msgspec

from guardfs.policy.check import check
from guardfs.policy.model import Policy
from guardfs.policy.problem import Problem
from guardfs.policy.read import Places, read
from guardfs.policy.sense import Known, sense


class Examined(msgspec.Struct, frozen=True, eq=False):
    """What a file says. policy: None if there is an error among the problems. problems: in the order of the file."""

    policy: Policy | None
    places: Places
    problems: tuple[Problem, ...]


def examine(data: bytes, *, known: Known | None = None) -> Examined:
    """The policy in *data*, with all its problems at once: those of the syntax; else those of form and sense.

    known: whether the machine knows a user or group; None: do not ask. Never raises.
    """
    document = read(data)
    if document.problems:
        return Examined(None, document.places, document.problems)
    problems = list(check(document.values, document.places))
    policy: Policy | None = None
    if not problems:
        policy = msgspec.convert(document.values, Policy)
        problems = list(sense(policy, document.places, known))
    if any(problem.severity == "error" for problem in problems):
        policy = None
    return Examined(policy, document.places, tuple(sorted(problems, key=lambda problem: problem.order)))
