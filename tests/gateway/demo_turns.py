"""A few turns of a real gateway, for people to watch; with a change from outside while a reply streams.

    python -m tests.gateway.demo_turns STATE [--turns N] [--foreign user|custom|assistant|model_change|none]

STATE is OpenClaw's state directory; mount a guard over ``STATE/agents/main/sessions`` first
(``--print-sessions`` creates
and prints it). Installs OpenClaw on first use. Exits with 0 if every undisturbed turn succeeded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from guardfs.errors import GuardError
from tests.gateway import foreign
from tests.gateway.gateway import Gateway, GatewayError
from tests.gateway.install import install
from tests.gateway.model import ModelServer
from tests.gateway.reach import History

KEY = "agent:main:demo"


def demo_turns(state: Path, turns: int, kind: str | None, say: Callable[[str], None]) -> int:
    """Run *turns* turns, then one during which a foreign process appends a record of *kind* (None: no such
    turn).

    *say* gets a line for each thing that happens. Returns how many of the undisturbed turns failed.
    """
    failed = 0
    say("starting a real OpenClaw gateway and a fake model server")
    with ModelServer() as model, Gateway(install(say=say), state, model) as gateway:
        assert gateway.process is not None
        say(f"the gateway is process {gateway.process.pid}, its transcripts are in {gateway.sessions}")
        for n in range(1, turns + 1):
            turn = gateway.turn(KEY, f"question {n} [say=answer-{n}]")
            failed += not turn.ok
            say(f"turn {n}: {turn.text} ({turn.seconds:.1f} s)")
        transcript = gateway.session_file(KEY)
        if kind and transcript:
            under_way = gateway.turn_async(KEY, "last question [say=last-answer] [seconds=2]")
            model.wait_streaming("last question")
            done = foreign.change(transcript, "append", kind)
            say(f"process {done['pid']} appends a {kind} record while the reply to the next question streams")
            turn = under_way.result()
            say(f"turn {turns + 1}: {turn.text if turn.ok else 'lost: ' + turn.text}")
            for line in gateway.errors()[:1]:
                say(f"the gateway's own log names the path, not the writer: {line.partition(' ')[2]}")
        gateway.wait_quiet()
        if transcript:
            history = History.of(transcript)
            say(f"{transcript.name}: {len(history.records)} records, {len(history.forgotten())} forgotten")
    return failed


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description="a few turns of a real OpenClaw gateway")
    parser.add_argument("state", type=Path)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--foreign", choices=[*foreign.KINDS, "none"], default="user")
    parser.add_argument(
        "--print-sessions", action="store_true", help="create and print the sessions directory"
    )
    args = parser.parse_args()
    if args.print_sessions:
        sessions = args.state.resolve() / "agents/main/sessions"
        sessions.mkdir(parents=True, exist_ok=True)
        print(sessions)
        return 0

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        return (
            1
            if demo_turns(args.state, args.turns, None if args.foreign == "none" else args.foreign, say)
            else 0
        )
    except (GuardError, GatewayError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
