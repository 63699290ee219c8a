"""`guardfs mount DIR...`: guard directories, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

from typing import Any

import click

from guardfs.cli.options import guard_options, wanted, wanted_plan


@click.command(
    "mount", epilog="Example:  guardfs mount ~/.openclaw/agents/main/sessions --audit /var/log/guardfs.jsonl"
)
@click.argument("directories", nargs=-1, required=True, metavar="DIR|PATTERN...")
@guard_options
def command(directories: tuple[str, ...], **options: Any) -> int:
    """Guard the sessions directory DIR: every operation in it is logged with who did it.

    Several may be named, and patterns in quotes, as 'agents/*/sessions': directories that appear later are then
    guarded, too.

    Stays in the foreground; SIGTERM or Ctrl-C unmounts. The files stay where they are: after the unmount the
    directory is the plain one again.
    """
    from guardfs.supervise.signals import Signals
    from guardfs.supervise.supervisor import Supervisor

    signals = Signals()
    plan = wanted_plan(options)
    settings, finder = wanted(directories, options)
    supervisor = Supervisor(settings, signals, finder)
    supervisor.hint = "; end it with Ctrl-C or `guardfs unmount {}`"
    supervisor.start()
    if plan is not None:
        supervisor.observe(plan)
    return supervisor.attend()
