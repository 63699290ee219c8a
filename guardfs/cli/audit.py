"""`guardfs audit verify`: is the log whole?"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from guardfs.audit.verify import Report, verify
from guardfs.cli.logs import find


@click.group(
    name="audit",
    epilog="Example:  guardfs audit verify --audit /var/log/guardfs/audit.jsonl",
)
def command() -> None:
    """Check the audit log."""


@command.command(
    name="verify",
    epilog="Example:  guardfs audit verify ~/.openclaw/agents/main/sessions",
)
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--audit", metavar="FILE", help="Check this log instead of those of the guards mounted now.")
@click.option("--head", metavar="FILE", help="The chain's head, if it is not where the log says.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def verify_command(directory: str | None, audit: str | None, head: str | None, as_json: bool) -> int:
    """Check that no line of the log was changed, removed, added or cut off.

    Ends with 0 if all is well, 1 if something is wrong, 2 if the log cannot be read.
    """
    if directory is not None and audit is not None:
        raise click.UsageError("DIR and --audit both name a log; leave one out")
    reports: list[tuple[str, Report]] = []
    for log in find(directory, audit):
        reports.append((log.file, verify(log.file, head or log.head)))
    if as_json:
        found: list[dict[str, Any]] = [{"log": file, **report.to_json()} for file, report in reports]
        sys.stdout.write(json.dumps(found[0] if len(found) == 1 else found, indent=2) + "\n")
    else:
        for file, report in reports:
            _print(file, report)
    return 0 if all(report.ok for _, report in reports) else 1


def _print(file: str, report: Report) -> None:
    out = sys.stdout.write
    for problem in report.problems:
        out(f"{problem.where}: {problem.text}\n")
    if report.more:
        out(f"{file}: and {report.more} problems more\n")
    span = f"seq {report.first} to {report.last}" if report.last is not None else "empty"
    files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
    state = "whole" if report.ok else "NOT WHOLE"
    out(f"{file}: {state}: {report.lines} lines{files}, {span}; {_HEADS[report.head]}\n")
    if report.gaps:
        out(f"{file}: the guard itself says that {report.gaps} events were lost (op gap)\n")
    if report.torn:
        out(f"{file}: the guard was killed while it wrote, {report.torn} times (op torn)\n")


_HEADS = {
    "fits": "the head fits",
    "older": "the head fits, and lines were written since",
    "beyond": "the head is older than the files left",
    "none": "no head found, so a cut end would not be seen",
    "broken": "the head does not fit",
}
