"""`guardfs state`: what waits in the journal, by the journal itself."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
import msgspec

from guardfs.audit.show import safe, short
from guardfs.cli.status import ago, read_status
from guardfs.cli.table import Column, Part, Table, terminal
from guardfs.errors import GuardError
from guardfs.mount import device
from guardfs.state.directory import default_state_dir
from guardfs.state.journal import Entry, entries

_COLUMNS = [
    Column("BRANCH", right=True),
    Column("TRANSCRIPT"),
    Column("LANE"),
    Column("BYTES", right=True),
    Column("AGE", right=True),
    Column("WHAT", second=True),
]


@click.command(
    "state", epilog="Example:  guardfs state --state /var/lib/guardfs/main-sessions-0c3f... --json"
)
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--state", metavar="DIR", help="The state directory. Default: that of the guard, or of DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, one object a state directory.")
def command(directory: str | None, state: str | None, as_json: bool) -> int:
    """Show the branches that wait in the state directory: of DIR, guarded or not, or of all guards.

    Nothing is changed. `guardfs recover DIR` puts into the files what a guard that ended has left.

    Exit status 0: nothing waits. 1: something does.
    """
    found = [(each, entries(each)) for each in _directories(directory, state)]
    if as_json:
        facts = [{"state": each, "entries": [_facts(entry) for entry in listed]} for each, listed in found]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
    else:
        for each, listed in found:
            _show(each, listed)
    return 1 if any(listed for _, listed in found) else 0


def _directories(directory: str | None, state: str | None) -> list[str]:
    if state is not None:
        return [os.path.abspath(state)]
    guards = list(dict.fromkeys(guard.path for guard in device.guards()))
    if directory is None:
        if not guards:
            raise GuardError("nothing is guarded", "name the directory, or its state with --state")
        return [_state_of(guard) for guard in guards]
    return [state_directory(directory)]


def state_directory(directory: str) -> str:
    """Where the guard of *directory* keeps its state, whether it runs or not."""
    real = os.path.realpath(directory)
    above = [guard.path for guard in device.guards() if (real + "/").startswith(guard.path + "/")]
    if above:
        return _state_of(max(above, key=len))
    if not os.path.isdir(real):
        raise GuardError(f"{directory}: no such directory", "check the path, or name its state with --state")
    return default_state_dir(real)


def _state_of(mountpoint: str) -> str:
    return str(read_status(mountpoint)["state"]["dir"])


def _facts(entry: Entry) -> dict[str, Any]:
    facts = msgspec.to_builtins(entry)
    for key in ("transcript", "file"):
        facts[key] = getattr(entry, key).decode("utf-8", "backslashreplace")
    facts["bytes"] = facts.pop("size")
    facts["opened_ns"], facts["written_ns"] = facts.pop("opened"), facts.pop("written")
    if entry.kind == "branch":
        del facts["file"], facts["removed"]
    return dict(facts)


def _show(state: str, listed: list[Entry]) -> None:
    if not listed:
        sys.stdout.write(f"{safe(state)}: nothing waits\n")
        return
    size = sum(entry.size for entry in listed if entry.kind == "branch")
    sys.stdout.write(f"{safe(state)}: {len(listed)} wait{'s' if len(listed) == 1 else ''}, {size:,} bytes\n")
    colour, width = terminal()
    table = Table(_COLUMNS, colour=colour, width=width)
    for entry in listed:
        table.row(_row(entry, time.time()))
    table.flush()


def _row(entry: Entry, now: float) -> list[Part]:
    return [
        Part(str(entry.number)),
        Part(short(entry.transcript.decode("utf-8", "backslashreplace"))),
        Part(safe(entry.lane)),
        Part(f"{entry.size:,}"),
        Part(ago(max(0.0, now - entry.opened / 1e9)) if entry.opened else ""),
        Part(what(entry)),
    ]


def what(entry: Entry) -> str:
    """What becomes of an entry, in words."""
    if entry.kind == "ghost":
        name = short(entry.file.decode("utf-8", "backslashreplace"))
        return f"{'removed' if entry.removed else 'renamed'} under its owner; the file is {name}"
    text = "replaces the transcript" if entry.whole else f"goes behind it (began at {entry.base:,} bytes)"
    return text + (", its rebase has begun" if entry.begun else "")
