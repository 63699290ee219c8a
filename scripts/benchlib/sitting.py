"""One sitting: mounts the targets, goes through the rounds, tells the result."""

from __future__ import annotations

import argparse
import gc
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchlib import measures
from benchlib.report import Figures, Sitting, summary, tables, write_page
from benchlib.targets import PLACEMENTS, Places, Target, choose, mounted
from guardfs import __version__
from guardfs.errors import GuardError

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "tests/traces/two-turns.jsonl"
PAGE = ROOT / "docs/performance.md"
TMPFS = Path("/dev/shm")

ROUNDS, QUICK_ROUNDS = 15, 5
APPENDS = 300
"""Records that each writer appends in a round: p99 over 15 rounds then rests on 45 values."""
LOCK_CYCLES = 100
BATCH = 5
"""Rounds after which everything is mounted anew: LoggedFS keeps some 300 MB a round until it ends."""
LISTINGS = 3

Say = Callable[[str], None]


def sit(
    chosen: list[str], storages: dict[str, Path], rounds: int, options: list[str], disk: Path, say: Say
) -> Sitting:
    """Measure *chosen* on every storage; *options* go to `guardfs mount`. Cleans up whatever happens."""
    events = measures.load(TRACE)
    sitting = Sitting(__version__, rounds, os.getloadavg()[0], {})
    for storage, backing in storages.items():
        figures = {name: Figures() for name in chosen}
        for first in range(1, rounds + 1, BATCH):
            batch = range(first, min(first + BATCH, rounds + 1))
            with _mounts(chosen, backing, disk, options, lambda source: None) as targets:
                for n in (0, *batch):
                    say(f"{storage}: round {n} of {rounds}" if n else f"{storage}: warming up")
                    for target in targets:
                        _one_round(target, events, figures[target.name] if n else Figures(), sitting.counts)
        with _mounts(chosen, backing, disk, options, measures.populate) as targets:
            for n in range(LISTINGS):
                say(f"{storage}: {measures.FILES} files, {n + 1} of {LISTINGS}")
                for target in targets:
                    target.place("apart")
                    listing, looking = measures.list_and_stat(target.directory)
                    figures[target.name].listing.append(listing)
                    figures[target.name].looking.append(looking)
            for target in targets:
                rss = target.rss_mb()
                if rss is not None:
                    figures[target.name].rss = max(rss, figures[target.name].rss or 0.0)
        reference = figures.get("bindfs")
        sitting.rows[storage] = {name: summary(each, reference) for name, each in figures.items()}
    return sitting


def _one_round(target: Target, events: list[measures.Event], into: Figures, counts: dict[str, int]) -> None:
    gc.collect()
    gc.disable()  # a collection in the bench must not be counted as a file system's time
    try:
        for placement in PLACEMENTS:
            target.place(placement)
            measures.replay(target.directory, events)  # wakes what served another target meanwhile
            spent = measures.replay(target.directory, events)
            seconds, count = sum(k.seconds for k in spent.values()), sum(k.count for k in spent.values())
            into.replay.setdefault(placement, []).append(1e6 * seconds / count)
            if placement == "apart":
                for name, kind in spent.items():
                    counts[name] = kind.count
                    into.replay_by_kind.setdefault(name, []).append(1e6 * kind.seconds / kind.count)
                into.append1 += measures.append(target.directory, 1, APPENDS)
                into.lock += measures.lock_cycle(target.directory, LOCK_CYCLES)
        into.append8 += measures.append(target.directory, 8, APPENDS)  # placement is "free" by now
    finally:
        gc.enable()
    rss = target.rss_mb()
    if rss is not None:
        into.rss = max(rss, into.rss or 0.0)


@contextmanager
def _mounts(
    chosen: list[str], backing: Path, disk: Path, options: list[str], populate: Callable[[Path], None]
) -> Iterator[list[Target]]:
    """All targets at once, each over a directory of its own; unmounted in reverse order, then removed."""
    with ExitStack() as stack:
        files = Path(stack.enter_context(_directory(backing)))
        logs = Path(stack.enter_context(_directory(disk)))
        targets = []
        for name in chosen:
            places = Places(files / name, logs / name)
            targets.append(stack.enter_context(mounted(name, places, options, populate)))
        yield targets


@contextmanager
def _directory(parent: Path) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="guardfs-bench-", dir=parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, onerror=_still_there)  # mounts inside are gone by now


def _still_there(function: Any, path: str, error: Any) -> None:
    sys.stderr.write(f"bench: {path} is left behind: {error[1]}\n")


def _arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, tmpfs only")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {ROUNDS}")
    names = "plain, bindfs, loggedfs, mergerfs, guardfs, unfenced, fenced, enforcing"
    parser.add_argument("--only", metavar="A,B,...", help=names)
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR")
    parser.add_argument(
        "--guard-options", default="", metavar="WORDS", help="further options of `guardfs mount`"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--write", action="store_true", help="update docs/performance.md")
    return parser.parse_args()


def _run(args: argparse.Namespace) -> int:
    chosen = choose(args.only.split(",") if args.only else None)
    rounds = args.rounds if args.rounds is not None else QUICK_ROUNDS if args.quick else ROUNDS
    if rounds < 1:
        raise GuardError(f"--rounds {rounds}: nothing to measure", "give 1 or more")
    if not args.disk.is_dir():
        raise GuardError(f"{args.disk}: not a directory", "give --disk an existing one")
    if args.write and not {"plain", "bindfs", "loggedfs", "guardfs"} <= set(chosen):
        raise GuardError("--write needs plain, bindfs, loggedfs and guardfs", "leave --only away")
    if not os.access(TMPFS, os.W_OK):
        raise GuardError(f"{TMPFS}: cannot be written", "mount a tmpfs there")
    storages = {"tmpfs": TMPFS} if args.quick else {"tmpfs": TMPFS, "disk": args.disk}

    def say(line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()

    sitting = sit(chosen, storages, rounds, shlex.split(args.guard_options), args.disk, say)
    say("")
    if args.json:
        print(json.dumps(sitting.as_json()))
    else:
        print(
            f"guardfs {sitting.version}, {sitting.date}, Linux {sitting.kernel}, {sitting.cores} cores,",
            end=" ",
        )
        print(f"{sitting.rounds} rounds, load average at the start {sitting.load:.2f}; microseconds\n")
        print(tables(sitting))
    if args.write:
        write_page(PAGE, sitting)
        print(f"written: {PAGE.relative_to(ROOT)}", file=sys.stderr)
    return 0


def main(description: str) -> int:
    """Parse, measure, print; exit status 0, or 2 with one line if it could not run."""

    def end(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)  # so that a bench that is told to end unmounts, too
    try:
        return _run(_arguments(description))
    except GuardError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("bench: interrupted; everything is unmounted", file=sys.stderr)
        return 130
