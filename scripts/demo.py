"""The demo: guardfs over a throw-away sessions directory, real writers, the live log, then who broke what.

Run by scripts/demo. Exit 0: all that was shown was as promised. 1: something was not. 2: it cannot run here.
130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import demo_show as show
from demo_guard import HERE, DemoError, Guarded, Process, on_terminate
from demo_race import show_race, transcripts
from rich.console import Console
from rich.markup import escape

WRITERS_DONE = 60.0  # seconds; they take about five
ROUNDS = "1000"  # more than there is time for: they are told when it is enough


def write_all(guard: Guarded) -> str:
    """Run gateway, second agent, cron and sync tool until each of these has broken a reply; what the gateway's own log
    says then."""
    log = os.path.join(guard.home, "gateway.log")
    writers = os.path.join(HERE, "writers")
    gateway = guard.start(sys.executable, os.path.join(writers, "gateway.py"), guard.sessions, log)
    chat, other = (os.path.join(guard.sessions, name) for name in transcripts(guard, gateway))
    others = [
        guard.start(sys.executable, os.path.join(writers, "agent.py"), other, ROUNDS),
        guard.start(os.path.join(writers, "cron.sh"), chat, ROUNDS),
        guard.start(os.path.join(writers, "sync.sh"), other, ROUNDS),
    ]
    wait_for_deaths(guard, [gateway, *others])
    for process in [*others, gateway]:  # the rounds and the replies under way are their last
        process.popen.terminate()
        finish(process)
    with open(log, encoding="utf-8") as file:
        return file.read()


def wait_for_deaths(guard: Guarded, writers: list[Process]) -> None:
    """Return when replies have died of the agent, of the cron job and of the sync tool (which runs ln and touch)."""
    deadline = time.monotonic() + WRITERS_DONE
    while True:
        rows = guard.command("incidents", guard.name, "--json", found=True).splitlines()
        found = {show.culprit({"incident": json.loads(row)}) for row in rows}
        if {"agent", "cron"} <= found and found & {"ln", "touch"}:
            return
        for process in writers:
            if process.popen.poll() is not None:
                raise DemoError(f"{process.name}: a writer ended early: {' '.join(process.lines[-3:])}")
        if time.monotonic() > deadline:
            raise DemoError(f"in {WRITERS_DONE:g} s replies have died only of {found}")
        time.sleep(0.3)


def finish(process: Process) -> None:
    if process.finish(WRITERS_DONE):
        raise DemoError(f"{process.name}: a writer failed: {' '.join(process.lines[-3:])}")


def run(console: Console) -> None:
    """The demo with writers of its own."""
    with Guarded() as guard:
        show.start_guard(console, guard)
        show.title(
            console,
            "2. Four programs write, the log follows",
            "A gateway (main and pool threads, lock files), a second agent, a cron job and a sync tool.",
        )
        tail = show.follow(console, guard)
        log = write_all(guard)
        show.finish_following(guard, tail)

        show.title(
            console,
            "3. Who wrote what",
            "Each record with its writer, from the log; on the left the path that the agent remembers.",
        )
        show.show_blame(console, guard)

        show.title(
            console,
            "4. Who broke the replies",
            "Each came while a reply was streaming. OpenClaw ends the turn then, and names only the file.",
        )
        show.show_broken(console, guard, log)
        show.show_account(console, guard)
        show.show_end(console, guard)
    show_race(console)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="guardfs over a throw-away directory")
    parser.add_argument(
        "--gateway",
        action="store_true",
        help="a real OpenClaw from the npm registry, with a fake model server",
    )
    args = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    on_terminate()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        why = "/dev/fuse is missing or forbidden; `.venv/bin/guardfs doctor` says what to do"
        print(f"scripts/demo: {why}", file=sys.stderr)
        return 2
    try:
        if args.gateway:
            import demo_openclaw

            demo_openclaw.run(console)
        else:
            run(console)
    except DemoError as error:
        console.print(f"[bold red]The demo failed:[/bold red] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted: the guard is off, the throw-away directory removed.")
        return 130
    console.print()
    console.print("[bold green]All of it was as promised.[/bold green] For your own gateway: README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
