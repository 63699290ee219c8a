"""`guardfs policy test`: does a policy say what its examples expect?"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

import click
import msgspec

from guardfs.errors import GuardError
from guardfs.policy.examples import Result, beside, read_examples, run
from guardfs.policy.load import load
from guardfs.policy.problem import Problem, printable, quoted
from guardfs.policy.users import ids


class _Tried(NamedTuple):
    source: str
    line: int
    result: Result


@click.command(
    name="test",
    epilog="Example:  guardfs policy test ./my-policy.toml",
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("-v", "--verbose", is_flag=True, help="Also name the examples that pass.")
@click.option("--json", "as_json", is_flag=True, help="The results as JSON.")
def command(files: tuple[str, ...], verbose: bool, as_json: bool) -> int:
    """Try the examples of policies: those in FILE itself, and those in NAME.examples.toml beside it.

    FILE: a policy file, or the name of one that ships. Ends with 0 if all pass, 1 if one fails, 2 if a file is bad.
    """
    failed = bad = False
    found: list[dict[str, Any]] = []
    for file in files:
        try:
            tried = _try(file)
        except GuardError as error:
            bad = True
            problems = getattr(error, "problems", ())
            source = getattr(error, "source", file)
            lines = [problem.text(source) for problem in problems] or [str(error)]
            sys.stderr.write("".join(f"guardfs policy test: {line}\n" for line in lines))
            found.append({"file": file, "error": str(error)})
            continue
        failures = [each for each in tried if not each.result.passed]
        failed = failed or bool(failures)
        found.append(
            {
                "file": file,
                "examples": len(tried),
                "failed": len(failures),
                "results": [_json(each) for each in tried],
            }
        )
        if not as_json:
            for each in tried if verbose else failures:
                sys.stdout.write(_line(each) + "\n")
            sys.stdout.write(f"{printable(file)}: {_summary(len(tried), len(failures))}\n")
    if as_json:
        sys.stdout.write(json.dumps(found[0] if len(found) == 1 else found, indent=2) + "\n")
    return 2 if bad else 1 if failed else 0


def _try(file: str) -> list[_Tried]:
    loaded = load(
        file, trust=False
    )  # nothing is guarded by it here, so it does not matter who may write to it
    places = [
        (loaded.source, loaded.places.key(("examples", at))[0]) for at in range(len(loaded.policy.examples))
    ]
    examples = list(loaded.policy.examples)
    other = beside(loaded.path)
    if os.path.exists(other):
        source = beside(loaded.source) if not loaded.shipped else os.path.relpath(other)
        try:
            with open(other, "rb") as opened:
                data = opened.read()
        except OSError as error:
            raise GuardError(f"{source}: {error.strerror}") from error
        more, where, problems = read_examples(data)
        if problems:
            raise _BadExamplesError(source, problems)
        places += [(source, where.key(("examples", at))[0]) for at in range(len(more))]
        examples += more
    results = run(loaded.policy, examples, ids)
    return [_Tried(*place, result) for place, result in zip(places, results, strict=True)]


class _BadExamplesError(GuardError):
    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(problems[0].text(source))


def _line(tried: _Tried) -> str:
    result = tried.result
    where = f"{tried.source}:{tried.line}: {quoted(result.name, 200)}: "
    if result.passed:
        return printable(where + "passed")
    wrong = "; ".join(
        f"expected {key} {quoted(result.expected[key])}, got {quoted(result.got[key])}"
        for key in result.wrong
    )
    return printable(f"{where}{wrong}{f' ({result.why})' if result.why else ''}")


def _summary(count: int, failed: int) -> str:
    if not count:
        return "no examples; write [[examples]] in it, or in a file beside it"
    examples = "1 example" if count == 1 else f"{count} examples"
    return f"{examples}, {f'{failed} failed' if failed else 'all passed' if count > 1 else 'passed'}"


def _json(tried: _Tried) -> dict[str, Any]:
    result: dict[str, Any] = msgspec.to_builtins(tried.result)
    return {"file": tried.source, "line": tried.line, "passed": tried.result.passed, **result}
