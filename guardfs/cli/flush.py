"""`guardfs flush`: what waits on branches goes into the transcripts, for a backup of the plain files."""

from __future__ import annotations

import errno
import math
import os
import sys
import time
from typing import Any

import click
import msgspec

from guardfs.audit.show import safe
from guardfs.cli.control import ask, guard, waits
from guardfs.cli.status import attribute
from guardfs.errors import GuardError
from guardfs.mount import device

_SOON = 30.0
"""Seconds in which a lock is released, and an agent has looked at its reply once more: that is always waited for."""

_POLL = 0.1


@click.command("flush", epilog="Example:  guardfs flush --timeout 600 && restic backup ~/.openclaw")
@click.argument("path", metavar="[DIR | TRANSCRIPT]", required=False)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    default=0.0,
    show_default=True,
    help="Seconds to wait for open fences to close.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: str | None, timeout: float, as_json: bool) -> int:
    """Put what waits on branches into the transcripts: of DIR, of one TRANSCRIPT, or of all guards.

    Without a fence that is open this takes an instant, or some seconds where the policy has the agent look at its reply
    once more (linger). With one it waits for --timeout. No turn is broken for it.

    Exit status 0: nothing waits any more. 1: some do, each is listed; or one of all guards does not answer.
    """
    if not math.isfinite(timeout):
        raise GuardError(f"--timeout {timeout}: not a time", "name a number of seconds")
    request: dict[str, Any] = {"do": "flush"}
    if path is None:
        mounts = list(dict.fromkeys(each.path for each in device.guards()))
        if not mounts:
            raise GuardError("nothing is guarded", "name a guarded directory")
    else:
        mounts = [guard(path)]
        if not os.path.isdir(path):
            _check(path)
            name = os.path.relpath(os.path.realpath(path), mounts[0])
            request["transcript"] = os.fsencode(name)
    begin, silent = time.monotonic(), set[str]()
    while True:
        left = _ask_all(mounts, request, None if path is not None else silent)
        whys = {each["why"] for answer in left.values() for each in answer["left"]}
        waited = time.monotonic() - begin
        if not whys or waited >= max(timeout, _SOON if whys & {"linger", "lock"} else 0.0):
            break
        time.sleep(_POLL)
    if path is not None and not whys and not os.path.lexists(path):
        raise GuardError(f"{path}: no such file or directory", "check the path")
    if as_json:
        facts = [{"mountpoint": mount, **answer} for mount, answer in left.items()]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
    else:
        for mount, answer in left.items():
            _show(mount, answer)
    sys.stderr.write("".join(f"guardfs: {trouble}\n" for trouble in sorted(silent)))
    return 1 if whys or silent else 0


def _ask_all(
    mounts: list[str], request: dict[str, Any], silent: set[str] | None
) -> dict[str, dict[str, Any]]:
    """The answers, by mount. One guard that gives none does not keep the others: it is noted in *silent*, if given."""
    left = {}
    for mount in mounts:
        try:
            left[mount] = ask(mount, request)
        except GuardError as error:
            if silent is None:
                raise
            silent.add(str(error))
    return left


def _check(path: str) -> None:
    """Refuse a file that is no transcript."""
    try:
        attribute(path)
    except FileNotFoundError:
        return  # it may only be to be made
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        raise GuardError(f"{path}: no transcript", "the guard's policy says which files are") from None


def _show(mount: str, answer: dict[str, Any]) -> None:
    if not answer["total"]:
        sys.stdout.write(f"{safe(mount)}: nothing waits\n")
        return
    sys.stdout.write(f"{safe(mount)}: {answer['total']} still wait{'s' if answer['total'] == 1 else ''}\n")
    for each in answer["left"]:
        sys.stdout.write(f"  {waits(each, time.time())}\n")
    if answer["total"] > len(answer["left"]):
        sys.stdout.write(f"  and {answer['total'] - len(answer['left'])} more\n")
