"""`guardfs completion SHELL`: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

import click


@click.command("completion", epilog="Example:  guardfs completion bash > /etc/bash_completion.d/guardfs")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script of SHELL.

    bash: source it, or put it into /etc/bash_completion.d. zsh: source it from .zshrc. fish: put it into
    ~/.config/fish/completions/guardfs.fish.
    """
    from click.shell_completion import get_completion_class

    from guardfs.cli.main import COMPLETE, _group

    found = get_completion_class(shell)
    assert found is not None
    complete = found(_group(), {}, "guardfs", COMPLETE)
    click.echo(found.source_template % complete.source_vars())
    return 0
