"""The command line: finds the command, prints errors as one line, sets the exit status.

Exit statuses: 0 fine, 1 found something (or the thing asked about is not so), 2 could not run. `run` exits
with its command's. Commands are imported when they are asked for: `guardfs --version` imports nothing but
this module.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from guardfs import __version__

if TYPE_CHECKING:
    import click

COMMANDS = {
    "mount": ("guardfs.cli.mount:command", "Guard a sessions directory; stays in the foreground."),
    "run": ("guardfs.cli.run:command", "Guard a sessions directory, run a command, unmount."),
    "unmount": ("guardfs.cli.unmount:command", "Take the guard off a directory."),
    "status": ("guardfs.cli.status:command", "Show what a running guard sees."),
    "mode": ("guardfs.cli.mode:command", "Record, enforce, or switch the guard off, while it runs."),
    "upgrade": ("guardfs.cli.upgrade:command", "Exchange the daemon of a mount for the one installed now."),
    "flush": ("guardfs.cli.flush:command", "Put what waits on branches into the transcripts."),
    "state": ("guardfs.cli.state:command", "Show what waits on branches, also without a guard."),
    "recover": ("guardfs.cli.recover:command", "Bring what a dead guard left to its end, without mounting."),
    "tail": ("guardfs.cli.tail:command", "Show who writes what, live."),
    "policy": ("guardfs.cli.policy:command", "Check, show and test policy files."),
    "incidents": (
        "guardfs.cli.incidents:command",
        "Show the turns that died of a changed transcript, and of whom.",
    ),
    "blame": ("guardfs.cli.blame:command", "Show who wrote each record of a transcript."),
    "report": ("guardfs.cli.report:command", "Draw who wrote when: one page to attach to a bug report."),
    "explain": ("guardfs.cli.explain:command", "Say why an operation got its lane and its verdict."),
    "replay": ("guardfs.cli.replay:command", "Show what another policy would have said of a log."),
    "audit": ("guardfs.cli.audit:command", "Check the audit log."),
    "serve": ("guardfs.cli.serve:command", "Serve metrics, health and the live page, beside the guards."),
    "doctor": ("guardfs.cli.doctor:command", "Say whether this machine can mount, and why not."),
    "completion": ("guardfs.cli.completion:command", "Print what makes a shell complete guardfs's words."),
}


COMPLETE = "_GUARDFS_COMPLETE"
"""Set by the shell's completion function (`guardfs completion`)."""


def _group() -> click.Group:
    import importlib

    import click

    class LazyGroup(click.Group):
        """A group whose commands are imported on use; the help lists them from `COMMANDS` alone."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in COMMANDS:
                return None
            module, _, attribute = COMMANDS[cmd_name][0].partition(":")
            found: click.Command = getattr(importlib.import_module(module), attribute)
            return found

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            if args and args[0] not in COMMANDS and not args[0].startswith("-"):
                import difflib

                near = difflib.get_close_matches(args[0], COMMANDS, 1)
                hint = f"did you mean {near[0]!r}?" if near else "`guardfs --help` lists the commands"
                raise click.UsageError(f"no command {args[0]!r}; {hint}")
            return super().resolve_command(ctx, args)

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    @click.group(
        cls=LazyGroup,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        epilog="Example:  guardfs run --sessions ~/.openclaw/agents/main/sessions -- openclaw gateway run",
    )
    @click.version_option(__version__, prog_name="guardfs", message="%(prog)s %(version)s")
    def group() -> None:
        """Guard the sessions directory of an AI gateway: name every writer, live."""

    return group


def _open_standard_streams() -> None:
    """Descriptors 0 to 2 must be something: whatever is opened next would become the standard error of the daemon."""
    import os

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    if sys.stdout is None or sys.stderr is None:
        nowhere = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)
        sys.stdout = sys.stdout or nowhere
        sys.stderr = sys.stderr or nowhere


def main(argv: list[str] | None = None) -> Any:
    """Entry point of the console command; ends the process."""
    _open_standard_streams()
    args = sys.argv[1:] if argv is None else argv
    if args == ["--version"]:  # no imports: 150 ms is the promise, and scripts ask often
        sys.stdout.write(f"guardfs {__version__}\n")
        sys.exit(0)
    import os

    import click

    from guardfs.errors import GuardError

    if COMPLETE in os.environ:  # asked by the shell, at each press of the tab key
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(_group(), {}, "guardfs", COMPLETE, os.environ[COMPLETE]))
    try:
        # not `main()`: click would make a closed pipe exit status 1, which here means "found something"
        with _group().make_context("guardfs", list(args)) as context:
            status = context.command.invoke(context)
        sys.exit(status if isinstance(status, int) else 0)
    except GuardError as error:
        sys.stderr.write(f"guardfs: {error}\n")
        sys.exit(error.exit_status)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the help: not to be put on one line
        sys.stderr.write(error.format_message() + "\n")
        sys.exit(2)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "guardfs"
        message = " ".join(error.format_message().split())
        sys.stderr.write(f"{where}: {message}; `{where} --help` shows what it takes\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `guardfs tail | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except (OSError, UnicodeError) as error:  # what no command has foreseen
        named = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or error
        sys.stderr.write(f"guardfs: {f'{named}: ' if named else ''}{reason}\n")
        sys.exit(2)
