"""`guardfs mode`: record, enforce, or nothing at all, while the guard runs."""

from __future__ import annotations

import difflib
import sys
import time
from typing import Any

import click
import msgspec

from guardfs.audit.show import safe
from guardfs.cli.control import ask, guard, waits
from guardfs.cli.status import ago, read_status
from guardfs.errors import GuardError

MODES = ("record", "enforce", "off", "policy")


@click.command("mode", epilog="Example:  guardfs mode off ~/.openclaw/agents/main/sessions")
@click.argument("words", metavar="[record|enforce|off|policy] DIR", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Set the mode of the guard on DIR, or show it.

    \b
    enforce  keep changes by others from whoever relies on a transcript
    record   only note who does what
    off      break-glass: everything that waits goes into the files now, and then
             nothing is decided; who writes is noted all the same
    policy   what the policy and the options of the mount say

    `record` and `enforce` hold until a changed policy file is taken or the directory is unmounted, and a fence that is
    open ends as it began. `off` holds until another mode is set; a turn in flight may fail of it.

    Exit status 1: `off`, and something could not be put into its file yet.
    """
    if len(words) > 2:
        raise click.UsageError(f"{words[2]!r} is one word too many")
    if len(words) == 1:
        if words[0] in MODES:
            raise click.UsageError(f"no directory; `guardfs mode {words[0]} DIR`")
        return _show(guard(words[0]), as_json)
    mode, path = words
    if mode not in MODES:
        near = difflib.get_close_matches(mode, MODES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(MODES)}"
        raise click.UsageError(f"no mode {mode!r}; {hint}")
    mountpoint = guard(path)
    answer = ask(mountpoint, {"do": "mode", "mode": mode})
    facts = _facts(mountpoint)
    stuck = answer["left"] if mode == "off" else []
    if as_json:
        _print({**facts, "before": answer["before"], "left": answer["left"]})
    else:
        sys.stdout.write(f"{_line(facts)}; was {answer['before']}\n")
        if facts["old_fences"]:
            count = facts["old_fences"]
            sys.stdout.write(f"  {count} open fence{'s end as they' if count > 1 else ' ends as it'} began\n")
        for left in answer["left"]:
            sys.stdout.write(f"  waits: {waits(left, time.time())}\n")
    return 1 if stuck else 0


def _facts(mountpoint: str) -> dict[str, Any]:
    policy = read_status(mountpoint).get("policy", {})
    if "mode_from" not in policy:
        raise GuardError(f"{mountpoint}: its guard does not say", "use the guardfs that is mounted there")
    return {"mountpoint": mountpoint, **{key: policy[key] for key in ("mode", "mode_from", "old_fences")}}


def _show(mountpoint: str, as_json: bool) -> int:
    facts = _facts(mountpoint)
    if as_json:
        _print(facts)
    else:
        sys.stdout.write(_line(facts) + "\n")
    return 0


def _line(facts: dict[str, Any]) -> str:
    return f"{safe(facts['mountpoint'])}: {facts['mode']}, {by_whom(facts['mode'], facts['mode_from'])}"


def by_whom(mode: str, source: dict[str, Any]) -> str:
    """Who says what the mode is, and how long that holds."""
    if source["source"] == "policy":
        return "as the policy says"
    if source["source"] == "option":
        return "as --mode says"
    when = ago(max(0.0, time.time() - source["since_ns"] / 1e9))
    until = "another is set" if mode == "off" else "the policy's file changes"
    return f"set by user {source['uid']} {when} ago ({safe(source['comm'])}[{source['tgid']}]), until {until}"


def _print(facts: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
