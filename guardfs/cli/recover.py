"""`guardfs recover DIR`: bring what a dead guard left in its journal to its end, without mounting."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from typing import Any

import click
import msgspec

from guardfs.audit.chain import HEAD_NAME
from guardfs.audit.log import AuditLog
from guardfs.audit.show import safe, short
from guardfs.errors import GuardError
from guardfs.mount.backing import Backing
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import Recovered, notice_of, recover
from guardfs.state.branches import BranchStore
from guardfs.state.directory import StateDirectory, default_state_dir
from guardfs.state.guarded import Guarded, recall
from guardfs.state.journal import entries
from guardfs.supervise import places
from guardfs.supervise.say import say
from guardfs.transcript.formats import FORMATS

_WORDS = {
    "appended": "appended",
    "replaced": "replaced the transcript",
    "made": "became the transcript",
    "done": "was in the transcript already",
    "conflict": "cannot be merged: kept",
}


@click.command("recover", epilog="Example:  guardfs recover ~/.openclaw/agents/main/sessions")
@click.argument("directory", metavar="DIR")
@click.option("--state", metavar="DIR", help="The state directory. Default: that of DIR.")
@click.option(
    "--policy",
    metavar="NAME|FILE",
    help="Take the transcripts' format from this policy. Default: that of the last mount.",
)
@click.option("--force", is_flag=True, help="Also if the state is that of another directory (DIR was moved).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, one object a branch.")
def command(directory: str, state: str | None, policy: str | None, force: bool, as_json: bool) -> int:
    """Put what a guard that ended has left on branches into the transcripts of DIR, which must not be guarded.

    The next mount does the same by itself. Doing it twice is the same as doing it once.

    Exit status 0: nothing waits any more. 1: something was kept as a file of its own, or waits still.
    """
    if places.clear_dead_mount(directory):
        say(f"{directory}: a dead mount was cleared away")
    real = places.sessions_directory(directory)
    path = os.path.abspath(state) if state is not None else default_state_dir(real)
    entries(path)  # there is a state, and this guardfs can read it
    kept = StateDirectory(path)
    locks = [kept.lock()]
    try:
        root = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        locks.append(root)
        _keep_out(root, real)
        guarded = recall(kept)
        if guarded is not None and guarded.sessions != os.fsencode(real) and not force:
            was = os.fsdecode(guarded.sessions)
            raise GuardError(
                f"{path}: the state of {was}, not of {real}",
                "name that directory, or use --force if it was moved",
            )
        found = _recover(path, root, _format(policy, guarded))
    finally:
        for fd in reversed(locks):
            os.close(fd)
    _log(kept, guarded, found)
    waits = entries(path)
    if as_json:
        facts = {"state": path, "branches": [_facts(each) for each in found], "wait": len(waits)}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{_line(each)}\n" for each in found) or f"{safe(real)}: nothing waits\n")
    bad = any(each.merged is None or each.merged.result == "conflict" for each in found)
    return 1 if bad or waits else 0


def _keep_out(root: int, real: str) -> None:
    """No guard is to be put over the directory meanwhile, under whatever name."""
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise GuardError(
            f"{real}: a guard holds this directory (perhaps under another path, or in another container)",
            "end that one first",
        ) from None
    except OSError:
        pass  # a file system without locks: the mount table is the only check


def _format(policy: str | None, guarded: Guarded | None) -> str:
    if policy is not None:
        from guardfs.policy.load import load

        return load(policy).policy.transcripts.format
    if guarded is None:
        raise GuardError(
            "it is not known of what format the transcripts are", "name the policy with --policy"
        )
    if guarded.format not in FORMATS:
        raise GuardError(
            f"transcripts of format {guarded.format!r}, unknown to this guardfs", "use a newer guardfs"
        )
    return guarded.format


def _recover(state: str, root: int, format: str) -> list[Recovered]:
    store = BranchStore(state)
    below = Backing()
    try:
        return recover(store, Merger(store, below, FORMATS[format]), root, below)
    finally:
        store.close()


def _log(state: StateDirectory, guarded: Guarded | None, found: list[Recovered]) -> None:
    """Tell the log of the last mount, if it is still there."""
    if guarded is None or not found or not os.path.exists(guarded.audit):
        return
    key = state.key() if guarded.hash_ids else None
    log = AuditLog(os.fsdecode(guarded.audit), state.file(HEAD_NAME), hash_key=key, keep=1000)
    try:
        log.start()
        for each in found:
            log.emit(notice_of(each, time.time_ns()))
        log.close()
    except GuardError as error:
        say(f"not in the log: {error}")


def _facts(each: Recovered) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": each.transcript.decode("utf-8", "backslashreplace"), "lane": each.lane}
    if each.merged is None:
        return {**facts, "result": "waits", "error": each.error}
    name = each.merged.name.decode("utf-8", "backslashreplace")
    return {
        **facts,
        "result": each.merged.result,
        "file": name,
        "bytes": each.merged.added,
        "records": each.merged.records,
    }


def _line(each: Recovered) -> str:
    facts = _facts(each)
    who = f"{short(facts['path'])}: what {safe(each.lane)} wrote"
    if each.merged is None:
        return f"{who} waits still: {safe(each.error)}"
    text = f"{who} {_WORDS.get(each.merged.result, each.merged.result)}"
    if each.merged.result == "conflict":
        return f"{text} as {safe(facts['file'])}"
    return f"{text} ({facts['records']} records, {facts['bytes']:,} bytes)" if facts["bytes"] else text
