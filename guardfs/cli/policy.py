"""`guardfs policy`: check, show and list policy files, and the schema for editors. `policy test` has its own module."""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

import click

from guardfs.policy.examine import Examined, examine
from guardfs.policy.examples import read_examples
from guardfs.policy.load import Read, known, load, locate, open_policy, shipped
from guardfs.policy.problem import PolicyError, Problem, key_text, printable


class _Group(click.Group):
    """`test` is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["check", "show", "test", "schema", "list"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "test":
            return super().get_command(ctx, cmd_name)
        try:
            found: click.Command = importlib.import_module("guardfs.cli.policy_test").command
        except ModuleNotFoundError:
            return None
        return found


@click.group(name="policy", cls=_Group, epilog="Example:  guardfs policy check /etc/guardfs/openclaw.toml")
def command() -> None:
    """Check, show and test policy files."""


@command.command(name="check", epilog="Example:  guardfs policy check *.toml")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="The problems as JSON, for editors and CI.")
def check_command(files: tuple[str, ...], as_json: bool) -> int:
    """Say all that is wrong with policy files. FILE: a file, or the name of a shipped policy; NAME.examples.toml is
    read as what `policy test` takes.

    Ends with 0 if all can be used, 1 if one cannot, 2 if one cannot be read. Warnings alone end with 0.
    """
    status = 0
    reports: list[dict[str, Any]] = []
    for name in files:
        problems, data = _problems(name)
        kinds = {problem.severity for problem in problems}
        if "error" in kinds:
            status = max(status, 2 if data is None else 1)
        reports.append(
            {
                "file": name,
                "ok": "error" not in kinds,
                "problems": [problem.to_json(name) for problem in problems],
            }
        )
        if not as_json:
            for problem in problems:
                _say(problem, name, data)
            if not problems and sys.stdout.isatty():
                sys.stdout.write(printable(f"{name}: good") + "\n")
    if as_json:
        sys.stdout.write(json.dumps(reports, indent=2) + "\n")
    return status


def _problems(name: str) -> tuple[tuple[Problem, ...], bytes | None]:
    """All that is wrong with the policy *name*, and what it holds; None if it cannot be read."""
    try:
        read: Read = open_policy(locate(name))
    except PolicyError as error:
        return error.problems, None
    if name.endswith(".examples.toml"):
        return (*read.distrust_as_warnings(), *read_examples(read.data)[2]), read.data
    found: Examined = examine(read.data, known=known)
    return (*read.distrust_as_warnings(), *found.problems), read.data


def _say(problem: Problem, name: str, data: bytes | None) -> None:
    out = sys.stdout
    text = problem.text(name)
    if not out.isatty():
        out.write(text + "\n")
        return
    place, colon, rest = text.partition(f"{name}:{problem.line}:{problem.column}:")
    colour = "yellow" if problem.severity == "warning" else "red"
    out.write(
        (
            click.style(colon, bold=True) + click.style(rest, fg=colour)
            if colon
            else click.style(place, fg=colour)
        )
        + "\n"
    )
    if data is None or problem.line is None or problem.column is None:
        return
    lines = data.decode(errors="replace").split("\n")
    if problem.line > len(lines):
        return
    line = lines[problem.line - 1].rstrip("\r")
    if len(line) > 300:
        return
    shown = printable(line.replace("\t", " "))
    before = len(printable(line[: problem.column - 1].replace("\t", " ")))
    number = f"{problem.line:>5} | "
    token = re.match(r'"[^"]*"|\'[^\']*\'|[A-Za-z0-9_.-]+|\[+', line[problem.column - 1 :])
    length = max(1, len(printable(token[0]))) if token else 1
    out.write(click.style(number, dim=True) + shown + "\n")
    out.write(" " * (len(number) + before) + click.style("^" * length, fg=colour, bold=True) + "\n")


@command.command(name="show", epilog="Example:  guardfs policy show openclaw")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="The values and their places as JSON.")
def show_command(file: str, as_json: bool) -> int:
    """Show a policy as it is understood: every value, and where it is from.

    Ends with 1 if the policy cannot be used, 2 if it cannot be read.
    """
    from guardfs.policy.show import as_toml, provenance

    try:
        loaded = load(file, trust=False)
    except PolicyError as error:
        if error.kind == "invalid":
            for problem in error.problems:
                sys.stderr.write(problem.text(error.source) + "\n")
            return 1
        raise
    for problem in loaded.warnings:
        sys.stderr.write(problem.text(loaded.source) + "\n")
    if not as_json:
        sys.stdout.write(printable_lines(as_toml(loaded.policy, loaded.places, loaded.source)))
        return 0
    values = [
        {"key": key_text(path), "value": value, "from": origin}
        for path, value, origin in provenance(loaded.policy, loaded.places, loaded.source)
    ]
    report = {"file": loaded.source, "path": loaded.path, "digest": loaded.digest, "values": values}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


def printable_lines(text: str) -> str:
    """*text* with what would act on a terminal escaped, line by line."""
    return "\n".join(map(printable, text.split("\n")))


@command.command(
    name="schema", epilog="Example:  guardfs policy schema > ~/.config/guardfs/policy.schema.json"
)
def schema_command() -> None:
    """Print the JSON Schema of policy files, so that editors complete keys and mark slips."""
    from guardfs.policy.schema import schema

    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")


@command.command(name="list", epilog="Example:  guardfs policy list")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def list_command(as_json: bool) -> None:
    """List the policies that ship; each can be named as it stands."""
    listed = shipped()
    if as_json:
        sys.stdout.write(
            json.dumps([{"name": name, "description": about} for name, about in listed], indent=2) + "\n"
        )
        return
    width = max((len(name) for name, _ in listed), default=0)
    for name, about in listed:
        sys.stdout.write(f"{name:<{width}}  {about}\n")
