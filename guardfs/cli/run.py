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
@click.option(
    "--user",
    "as_user",
    metavar="NAME|UID[:GROUP]",
    help="Run COMMAND as this user, without any capability. The files belong to that user, as ever.",
)
@click.option(
    "--allow-new-privs",
    is_flag=True,
    help="Let sudo, su and other set-user-ID programs work for COMMAND. Default: they do not gain anything.",
)
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...")
def command(
    sessions: str, words: tuple[str, ...], as_user: str | None, allow_new_privs: bool, **options: Any
) -> int:
    """Guard a sessions directory, run COMMAND, unmount, and exit with the command's status.

    Signals are passed on to the command.
    """
    from guardfs.supervise.command import Start
    from guardfs.supervise.say import say
    from guardfs.supervise.signals import Signals
    from guardfs.supervise.supervisor import Supervisor
    from guardfs.supervise.user import parse

    signals = Signals()  # first of all: as PID 1, the kernel drops what has no handler
    user = None if as_user is None else parse(as_user)
    wanted = settings(sessions, options)
    supervisor = Supervisor([wanted], signals)
    supervisor.start()
    say(f"guarding {wanted.sessions}, policy {wanted.policy.source}, log {wanted.audit}")
    supervisor.run(Start(words, user, allow_new_privs))
    return supervisor.attend()
