"""`guardfs upgrade DIR`: exchange the daemon of a mount for the one that is installed now; nobody notices."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from guardfs.audit.show import safe
from guardfs.cli.control import ask, guard
from guardfs.cli.status import read_status
from guardfs.errors import GuardError
from guardfs.mount.memory.store import FORMAT

_SECONDS = 60.0
"""Until the new daemon answers. It takes less than one, but may have to be started several times."""


@click.command("upgrade", epilog="Example:  guardfs upgrade ~/.openclaw/agents/main/sessions")
@click.argument("directory", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(directory: str, as_json: bool) -> int:
    """Have the guard on DIR start the daemon that is installed now, which takes over the connection of the old one.

    The mount stays, and with it the device number; open files, fences and branches go on, and calls that come meanwhile
    wait for less than a second. The supervisor itself is not exchanged.

    Exit status 1: another daemon was asked for and did not answer.
    """
    mountpoint = guard(directory)
    before = read_status(mountpoint)["daemon"]
    began = time.monotonic()
    answer = ask(mountpoint, {"do": "upgrade", "format": FORMAT})
    if "error" in answer:
        raise GuardError(
            f"{mountpoint}: not exchanged: {answer['error']}", "unmount and mount again at a quiet moment"
        )
    after = _after(mountpoint, before["pid"])
    took = time.monotonic() - began
    facts: dict[str, Any] = {
        "mountpoint": mountpoint,
        "before": {"pid": answer["pid"], "version": answer["version"]},
        "after": after,
        "took_ms": round(took * 1000),
    }
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
    elif after is None:
        sys.stdout.write(f"{safe(mountpoint)}: no other daemon answers after {took:.0f} s\n")
    else:
        sys.stdout.write(
            f"{safe(mountpoint)}: guardfs {safe(after['version'])}[{after['pid']}] has taken over from "
            f"{safe(answer['version'])}[{answer['pid']}] in {took:.1f} s\n"
        )
    return 0 if after is not None else 1


def _after(mountpoint: str, pid: int) -> dict[str, Any] | None:
    """The daemon that serves in the place of *pid*."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            status = read_status(mountpoint)
            if status["daemon"]["pid"] != pid:
                return {"pid": status["daemon"]["pid"], "version": status["version"]}
        except GuardError:
            pass
        time.sleep(0.02)
    return None
