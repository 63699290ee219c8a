"""`guardfs run --sessions DIR -- COMMAND`: guard directories for as long as a command runs."""

from __future__ import annotations

from typing import Any

import click

from guardfs.cli.options import guard_options, wanted, wanted_plan


@click.command(
    "run",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Example:  guardfs run --sessions ~/.openclaw/agents/main/sessions -- openclaw gateway run",
)
@click.option(
    "--sessions",
    required=True,
    multiple=True,
    metavar="DIR|PATTERN",
    help="The directory that holds the transcripts. May be repeated, and be a pattern in quotes, as "
    "'agents/*/sessions': directories that appear later are then guarded, too.",
)
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
    sessions: tuple[str, ...],
    words: tuple[str, ...],
    as_user: str | None,
    allow_new_privs: bool,
    **options: Any,
) -> int:
    """Guard sessions directories, run COMMAND, unmount, and exit with the command's status.

    Fit to be process 1 of a container: signals are passed on to the command, orphans are reaped, and what is left
    when the command ends is ended, too.
    """
    from guardfs.supervise.command import Start
    from guardfs.supervise.signals import Signals
    from guardfs.supervise.supervisor import Supervisor
    from guardfs.supervise.user import parse

    signals = Signals()  # first of all: as PID 1, the kernel drops what has no handler
    user = None if as_user is None else parse(as_user)
    plan = wanted_plan(options)
    settings, finder = wanted(sessions, options)
    supervisor = Supervisor(settings, signals, finder)
    supervisor.start()
    if plan is not None:
        supervisor.observe(plan)
    supervisor.run(Start(words, user, allow_new_privs))
    return supervisor.attend()
