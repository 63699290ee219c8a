"""`guardfs unmount DIR`: take the guard off, at a quiet moment."""

from __future__ import annotations

import errno
import math
import os
import time

import click
import msgspec

from guardfs.errors import GuardError
from guardfs.mount import device
from guardfs.policy.model import Transcripts
from guardfs.transcript.names import NameRules


@click.command("unmount", epilog="Example:  guardfs unmount ~/.openclaw/agents/main/sessions --timeout 60")
@click.argument("directory", metavar="DIR")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    default=10.0,
    show_default=True,
    help="Seconds to wait for a moment without lock files.",
)
@click.option("--force", is_flag=True, help="Unmount at once; a turn in flight may fail.")
def command(directory: str, timeout: float, force: bool) -> int:
    """Take the guard off DIR. The plain directory, with the same files, is there again.

    Waits for a moment without lock files, because an unmount changes the device number of every file, which
    fails a turn in flight. A busy mount is detached, and gone when the last user lets go.
    """
    from guardfs.supervise import places
    from guardfs.supervise.holders import described, holders
    from guardfs.supervise.quiet import wait_for_quiet
    from guardfs.supervise.say import say

    if not math.isfinite(timeout):
        raise GuardError(f"--timeout {timeout}: not a time", "name a number of seconds")
    if not force and places.clear_dead_mount(directory):
        say(f"{directory}: a dead mount was cleared away")
        return 0
    # by the parent's real path: to look at the mount itself would wait for a daemon that hangs
    plain = os.path.abspath(directory)
    real = os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain))
    if not device.is_guard(real):
        raise GuardError(f"{directory}: not guarded", "`guardfs status` lists the guarded directories")
    daemon, supervisor = (None, None) if force else _pids_of(real)
    if not force:
        try:
            listing = os.open(real, os.O_RDONLY | os.O_DIRECTORY)
            try:
                reason = wait_for_quiet(listing, _names_of(real), timeout)
            finally:
                os.close(listing)
        except OSError as error:
            mend = f"`guardfs unmount --force {directory}` takes it off all the same"
            raise GuardError(f"{directory}: the guard does not answer: {error.strerror}", mend) from None
        if reason:
            say(f"{directory}: still guarded: {reason}; try later, with a longer --timeout, or with --force")
            return 1
    try:
        device.unmount(real)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise GuardError(
                f"{directory}: cannot unmount: {error.strerror}", "run it as the user who mounted, or as root"
            ) from None
        others = described(holders(real, besides=[pid for pid in (daemon, supervisor) if pid]))
        say(f"{directory}: busy, held by {others}; detached, and gone when they let go")
        device.unmount(real, lazy=True)
        return 0
    _wait_for_end(daemon)
    return 0


def _names_of(path: str) -> NameRules:
    """Which files are locks, by the policy of the guard on *path*; by the defaults where it does not answer."""
    from guardfs.cli.status import read_status

    try:
        found = read_status(path)["policy"]["transcripts"]
        return NameRules(msgspec.convert(found, Transcripts))
    except (GuardError, KeyError, TypeError, msgspec.ValidationError):
        return NameRules(Transcripts())


def _pids_of(path: str) -> tuple[int | None, int | None]:
    """Daemon and supervisor of the guard on *path*, as far as it answers."""
    from guardfs.cli.status import read_status

    try:
        daemon = read_status(path).get("daemon", {})
    except GuardError:
        return None, None
    return daemon.get("pid"), daemon.get("supervisor")


def _wait_for_end(pid: int | None, seconds: float = 10.0) -> None:
    """Until the daemon has written its last event: what follows may read the log."""
    if pid is None:
        return
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)
