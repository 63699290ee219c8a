"""`guardfs serve`: metrics, health and the live page of guards, beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click

from guardfs.errors import GuardError


@click.command("serve", epilog="Example:  guardfs serve --metrics 127.0.0.1:9464 --web 127.0.0.1:8470")
@click.argument("directories", metavar="[DIR]...", nargs=-1)
@click.option("--metrics", metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz there.")
@click.option("--web", metavar="HOST:PORT", help="Serve the live page there.")
@click.option(
    "--token-file",
    metavar="FILE",
    help="Every request needs the token in FILE. Without one, only loopback addresses are served.",
)
def command(
    directories: tuple[str, ...], metrics: str | None, web: str | None, token_file: str | None
) -> int:
    """Serve metrics, health and the live page of the guards of DIR..., or of all guards, until SIGTERM or Ctrl-C.

    Runs beside the guards: it reads their logs and asks for their status, and can slow no operation. `run` and `mount`
    start it for themselves, given the same options.
    """
    import trio

    from guardfs.serve.guards import Guards, guarded_path, mounted
    from guardfs.serve.plan import Known, others_read, plan_of
    from guardfs.serve.rights import lessen, stand_back
    from guardfs.serve.server import open_all, pages, serve, until_told
    from guardfs.supervise.say import say

    plan = plan_of(metrics, web, token_file)
    if not plan.addresses():
        raise GuardError("nothing to serve", "name an address with --metrics, with --web, or both")
    found: Callable[[], list[Known]] = mounted
    if directories:
        given = [Known(guarded_path(directory)) for directory in directories]
        found = partial(list, given)
    guards = Guards(found)
    opened = open_all(plan)
    if token_file is not None and others_read(token_file):
        say(f"{token_file}: every user may read the token; chmod go-rwx {token_file}")
    for listener, what in opened:
        say(f"serving {pages(what, listener)}")
    stand_back()
    lessen()
    trio.run(until_told, guards, lambda stop: serve(guards, opened, plan.token, stop))
    return 0
