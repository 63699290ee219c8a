"""What `scripts/fuzz` runs: one input is one policy file."""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped]  # in an environment of its own

with atheris.instrument_imports(include=["guardfs.policy", "tomllib"]):
    from guardfs.policy.examine import examine


def one(data: bytes) -> None:
    """Must give a policy, or problems with words and places."""
    found = examine(data)
    errors = [problem for problem in found.problems if problem.severity == "error"]
    assert (found.policy is None) == bool(errors)
    lines = data.count(b"\n") + 1
    for problem in found.problems:
        assert problem.what and problem.text("p").isprintable()
        assert problem.line is None or (1 <= problem.line <= lines and (problem.column or 0) >= 1)


atheris.Setup(sys.argv, one)
atheris.Fuzz()
