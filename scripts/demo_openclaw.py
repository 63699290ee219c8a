"""The demo with a real OpenClaw on the guarded directory, started by the project's own test harness."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import demo_show as show
from demo_guard import HERE, DemoError, Guarded
from rich.console import Console
from rich.markup import escape

from guardfs.errors import GuardError
from tests.gateway.gateway import Gateway, GatewayError, Turn
from tests.gateway.install import install
from tests.gateway.model import ModelServer

SESSION = "agent:main:demo"
STATE = ".openclaw"
SESSIONS = f"{STATE}/agents/main/sessions"


@dataclass
class Told:
    """A turn with somebody else at work, and what it came to."""

    by: str
    turn: Turn


def disturbed(guard: Guarded, gateway: Gateway, word: str, script: str) -> Told:
    """One turn; *script* of the demo's writers changes the transcript while the reply streams."""
    transcript = gateway.session_file(SESSION)
    if transcript is None:
        raise DemoError("the registry does not name the transcript")
    reply = gateway.turn_async(SESSION, f"question {word} [say={word}] [seconds=3]")
    gateway.model.wait_streaming(word)
    writer = guard.start(os.path.join(HERE, "writers", script), str(transcript), "1")
    if writer.finish():
        raise DemoError(f"{script}: {' '.join(writer.lines[-3:])}")
    turn = reply.result()
    gateway.wait_quiet()
    return Told(script, turn)


def show_turn(console: Console, name: str, turn: Turn) -> None:
    outcome = "[green]answered[/green]" if turn.ok else "[red]lost[/red]"
    console.print(
        f"turn {name}: {outcome} after {turn.seconds:.1f} s: {escape(turn.text[:90])}", soft_wrap=True
    )


def talk(guard: Guarded, gateway: Gateway) -> list[Told]:
    """Three turns: alone, with a cron job, with a sync tool."""
    alone = gateway.turn(SESSION, "question alone [say=alone]")
    gateway.wait_quiet()
    if not alone.ok:
        raise DemoError(f"a turn that nobody disturbed was lost: {alone.text}")
    told = [disturbed(guard, gateway, "cron", "cron.sh"), disturbed(guard, gateway, "sync", "sync.sh")]
    return [Told("nobody else", alone), *told]


def run(console: Console) -> None:
    """The demo with a real gateway."""
    say: Callable[[str], None] = console.print
    try:
        openclaw = install(say=say)
        with Guarded(SESSIONS) as guard, ModelServer() as model:
            show.start_guard(console, guard)
            gateway = Gateway(openclaw, Path(guard.home, STATE), model)
            with gateway:
                show.title(
                    console,
                    f"2. OpenClaw {openclaw.version} answers three messages, the log follows",
                    "During the second a cron job appends, during the third a sync tool makes a hard link.",
                )
                tail = show.follow(console, guard)
                told = talk(guard, gateway)
                show.finish_following(guard, tail)
                console.print()
                for each in told:
                    show_turn(console, f"with {each.by} at work", each.turn)
            show.title(
                console,
                "3. Who wrote what",
                "Each record with its writer, from the log; on the left the path that the agent remembers.",
            )
            show.show_blame(console, guard)
            show.title(
                console,
                "4. Who broke the replies",
                "OpenClaw says that the session file changed and names the file. The log names the writer.",
            )
            show.show_broken(console, guard, "\n".join(gateway.errors()) + "\n")
            show.show_account(console, guard)
            show.show_end(console, guard)
    except (GuardError, GatewayError, TimeoutError) as error:
        raise DemoError(str(error)) from error
