"""What the demo shows on the terminal, section by section."""

from __future__ import annotations

import json
import os
import re
import shlex
from datetime import UTC, datetime

import who_wrote
from demo_guard import GUARDFS, DemoError, Guarded, Process, contents
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from who_wrote import Event, Share

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


def show_shares(console: Console, guard: Guarded) -> None:
    """A table a transcript, from the log alone; then what the log says is held against the files."""
    shares = who_wrote.shares(who_wrote.events(guard.audit))
    del shares[END_MARK]
    for path, by_thread in sorted(shares.items()):
        console.print(f"[bold cyan]{escape(path)}[/bold cyan]")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("lane", "process", "thread", "records", "bytes", "other", "command"):
            right = column in ("process", "records", "bytes")
            table.add_column(column, justify="right" if right else "left", no_wrap=True)
        for share in by_thread:
            table.add_row(
                escape(share.lane),
                str(share.pid) if share.others == 0 else f"{share.pid} +{share.others}",
                "main" if share.main else f"pool {share.tid}",
                str(share.records or ""),
                str(share.size or ""),
                ", ".join(f"{count} {op}" for op, count in share.changes.items()),
                escape(short(share.command)),
            )
        console.print(table)
        console.print()
    check_bytes(console, shares, guard.sessions)


def short(command: str) -> str:
    """A command line without directories and long identifiers, as somebody would say it."""
    words = " ".join(os.path.basename(part.rstrip("/")) for part in command.split()[:2])
    return re.sub(r"([0-9a-f]{8})-[0-9a-f-]{27}", r"\1…", words)


def show_broken(console: Console, guard: Guarded, report: str, owner: int) -> None:
    """Ask the log, for every reply that the gateway would have lost, who changed the transcript."""
    with open(report, encoding="utf-8") as file:
        broken = [json.loads(line) for line in file]
    if not broken:
        raise DemoError("nobody changed a transcript during a reply: the demo's writers did not meet")
    log = list(who_wrote.events(guard.audit))
    parents = who_wrote.parents(log)
    for fence in broken:
        since, until = stamp(fence["since"]), stamp(fence["until"])
        found = who_wrote.culprits(log, fence["path"], since, until, owner)
        if not found:
            raise DemoError(f"{fence['path']} changed during a reply, and the log does not say by whom")
        console.print(
            f"[red]session file changed while embedded prompt lock was released[/red]: {fence['path']}"
        )
        for event in found:
            console.print(f"    {escape(in_words(event, parents))}", soft_wrap=True)


def in_words(event: Event, parents: dict[int, str]) -> str:
    writer = event["writer"]
    what = f"{event['op']}, {event['bytes']} bytes" if event["op"] == "write" else event["op"]
    parent = parents.get(writer["tgid"], "nobody known")
    exe = writer.get("exe", "executable unknown")
    return (
        f"{event['time'][11:23]}  {event['lane']}: {what}; process {writer['tgid']}, {exe}, child of {parent}"
    )


def stamp(ns: int) -> str:
    """Nanoseconds since the epoch as the log writes times."""
    second = datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{ns // 1000 % 10**6:06d}Z"


def check_bytes(console: Console, shares: dict[str, list[Share]], directory: str) -> None:
    """The log is complete: for each transcript, the bytes of its events add up to the size of the file."""
    for path, by_thread in shares.items():
        size = os.path.getsize(os.path.join(directory, path))
        logged = sum(share.size for share in by_thread)
        if size != logged:
            raise DemoError(f"{path}: {size} bytes in the file, {logged} in the log")
    console.print("The bytes of each transcript's events add up to the size of the file.")


def show_account(console: Console, guard: Guarded) -> None:
    title(console, "5. The guard's own account", "Asked through the mount itself; then the log's hash chain.")
    for shown, args in (
        (("status", "sessions"), ("status", guard.sessions)),
        (("audit", "verify", "--audit", "audit.jsonl"), ("audit", "verify", "--audit", guard.audit)),
    ):
        typed(console, "guardfs", *shown)
        console.print(escape(guard.command(*args)), soft_wrap=True)


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
