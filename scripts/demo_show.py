"""What the demo shows on the terminal, section by section."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from demo_guard import GUARDFS, DemoError, Guarded, Process, contents
from rich.console import Console
from rich.markup import escape

END_MARK = "demo-ends-here.jsonl"  # a file made last: once the log shows it, all before it has been shown
FOLLOW = ("--follow", "--path", "*[0-9a-f].jsonl", "--op", "write", "--op", "link", "--op", "attributes")


def title(console: Console, text: str, why: str) -> None:
    console.print()
    console.rule(f"[bold]{text}", align="left")
    console.print(f"[dim]{why}[/dim]")
    console.print()


def typed(console: Console, *command: str) -> None:
    """The command as an operator would type it."""
    console.print(f"[bold green]$[/bold green] [bold]{escape(' '.join(command))}[/bold]", soft_wrap=True)


def follow(console: Console, guard: Guarded) -> Process:
    """Follow the log in the background, each line shown as it comes."""

    def show(line: str) -> None:
        if END_MARK not in line:
            console.file.write(line + "\n")
            console.file.flush()

    typed(console, "guardfs", "tail", "sessions", shlex.join(FOLLOW))
    return guard.start(GUARDFS, "tail", guard.sessions, *FOLLOW, show=show, terminal=console.is_terminal)


def finish_following(guard: Guarded, tail: Process) -> None:
    """Wait until the live log has shown everything so far, then end it."""
    mark = os.path.join(guard.sessions, END_MARK)
    with open(mark, "w") as file:
        file.write("{}\n")
    tail.wait_line(END_MARK)
    os.unlink(mark)
    tail.end()


def ask(console: Console, guard: Guarded, *args: str, found: bool = False) -> None:
    """Type a command, run it, show what it prints, in colours on a terminal. found: it is to find something."""

    def show(line: str) -> None:
        console.file.write(line + "\n")

    typed(console, "guardfs", shlex.join(args))
    process = guard.start(GUARDFS, *args, show=show, terminal=console.is_terminal)
    status = process.finish()
    console.file.flush()
    if status > found:
        raise DemoError(f"guardfs {args[0]}: status {status}: {' '.join(process.lines[-3:])}")


def show_blame(console: Console, guard: Guarded) -> None:
    """Who wrote each record of each transcript; then what the log says is held against the files."""
    for name in sorted(os.listdir(guard.sessions)):
        if name.endswith(".jsonl") and not name.endswith(".trajectory.jsonl"):
            path = os.path.join(guard.name, name)
            ask(console, guard, "blame", path, found=True)
            console.print()
            check_bytes(guard, path)
    console.print("The bytes that the log has a writer for add up to the size of each file.")


def check_bytes(guard: Guarded, path: str) -> None:
    """The log is complete: each byte of the transcript was written by somebody whom it knows."""
    rows = guard.command("blame", path, "--json", found=True).splitlines()
    known = [row for row in map(json.loads, rows) if row["known"] == "log"]
    logged = sum(row["bytes"] + row["whole"] for row in known)
    size = os.path.getsize(os.path.join(guard.home, path))
    if size != logged:
        raise DemoError(f"{path}: {size} bytes in the file, {logged} with a writer in the log")


def show_broken(console: Console, guard: Guarded, log: str) -> None:
    """From the lines of the gateway's own *log* to who broke its replies, and one of them in full."""
    lines = log.splitlines()
    if not lines:
        raise DemoError("nobody changed a transcript during a reply: the demo's writers did not meet")
    ask(console, guard, "incidents", guard.name, found=True)
    answers = explained(guard, log)
    chosen = next((each for each in answers if culprit(each) == "cron"), answers[0])
    stamp = chosen["line"]["time"][:23]
    line = next((line for line in lines if line.startswith(stamp)), lines[0])
    console.print()
    console.print("One of them, from the line in the gateway's log to who it was:")
    console.print()
    ask(console, guard, "explain", guard.name, "--log-line", line)
    console.print()
    console.print(
        f"Replies that the gateway lost: {len(answers)}. Explained: {len(answers)}. Blamed besides: none."
    )


def explained(guard: Guarded, log: str) -> list[dict[str, Any]]:
    """What guardfs says of each lost reply; DemoError where it has no answer, or more deaths than replies were lost."""
    told = guard.command("explain", guard.name, "--log-line", "-", "--json", text=log, found=True)
    lost = [answer for answer in json.loads(told) if answer["line"]["kind"] == "changed"]
    blamed = {answer["incident"]["seq"] for answer in lost if answer["incident"] is not None}
    rows = guard.command("incidents", guard.name, "--json", found=True).splitlines()
    if len(blamed) != len(lost) or blamed != {json.loads(row)["seq"] for row in rows}:
        raise DemoError(f"{len(lost)} replies were lost, {len(blamed)} are explained, {len(rows)} are told")
    return lost


def culprit(answer: dict[str, Any]) -> str:
    """The lane that broke a reply; "" where nobody was seen."""
    found = answer["incident"]["culprit_process"]
    return str(found["lane"]) if found else ""


def show_account(console: Console, guard: Guarded) -> None:
    title(console, "5. The guard's own account", "Asked through the mount itself; then the log's hash chain.")
    ask(console, guard, "status", guard.name)
    ask(console, guard, "audit", "verify", "--audit", "audit.jsonl")


def show_end(console: Console, guard: Guarded) -> None:
    title(
        console,
        "6. And off again",
        "What was seen through the guard must be what lies in the plain directory.",
    )
    through = contents(guard.sessions)
    typed(console, "guardfs unmount sessions")
    guard.unmount()
    plain = contents(guard.sessions)
    if plain != through or not plain:
        raise DemoError(f"the plain directory differs: {sorted(set(through.items()) ^ set(plain.items()))}")
    console.print(f"{len(plain)} plain files in a plain directory, the same bytes as through the guard.")


def start_guard(console: Console, guard: Guarded) -> None:
    title(
        console,
        "1. The guard goes over the directory",
        "The files stay where they are; every operation now passes the guard, which notes who did it.",
    )
    typed(console, "guardfs mount sessions --audit audit.jsonl --state state")
    console.print(escape(guard.mount()), soft_wrap=True)
