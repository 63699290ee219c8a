"""`guardfs run --sessions DIR -- COMMAND`: guard a directory for as long as a command runs."""

from __future__ import annotations

from typing import Any

import click

from guardfs.cli.options import guard_options, settings


@click.command(
    "run",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Example:  guardfs run --sessions ~/.openclaw/agents/main/sessions -- openclaw gateway run",
)
@click.option("--sessions", required=True, metavar="DIR", help="The directory that holds the transcripts.")
@guard_options
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...")
def command(sessions: str, words: tuple[str, ...], **options: Any) -> int:
    """Guard a sessions directory, run COMMAND, unmount, and exit with the command's status.

    Signals are passed on to the command.
    """
    from guardfs.supervise.say import say
    from guardfs.supervise.signals import Signals
    from guardfs.supervise.supervisor import Supervisor

    wanted = settings(sessions, options)
    supervisor = Supervisor([wanted], Signals())
    supervisor.start()
    say(f"guarding {wanted.sessions}, policy {wanted.policy.source}, log {wanted.audit}")
    supervisor.run(words)
    return supervisor.attend()
