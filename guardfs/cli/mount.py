"""`guardfs mount DIR`: guard a directory, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

from typing import Any

import click

from guardfs.cli.options import guard_options, settings


@click.command(
    "mount", epilog="Example:  guardfs mount ~/.openclaw/agents/main/sessions --audit /var/log/guardfs.jsonl"
)
@click.argument("directory", metavar="DIR")
@guard_options
def command(directory: str, **options: Any) -> int:
    """Guard the sessions directory DIR: every operation in it is logged with who did it.

    Stays in the foreground; SIGTERM or Ctrl-C unmounts. The files stay where they are: after the unmount the
    directory is the plain one again.
    """
    from guardfs.supervise.say import say
    from guardfs.supervise.signals import Signals
    from guardfs.supervise.supervisor import Supervisor

    wanted = settings(directory, options)
    supervisor = Supervisor([wanted], Signals())
    supervisor.start()
    say(
        f"guarding {wanted.sessions}, policy {wanted.policy.source}, log {wanted.audit}; "
        f"end it with Ctrl-C or `guardfs unmount {directory}`"
    )
    return supervisor.attend()
