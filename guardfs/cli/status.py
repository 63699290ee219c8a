"""`guardfs status`: what running guards say of themselves."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any

import click
import msgspec
import xattr

from guardfs.audit.show import safe, short
from guardfs.bounded import bounded
from guardfs.cli.serving import addresses
from guardfs.errors import GuardError
from guardfs.mount import device

ATTRIBUTE = "user.guardfs.status"

SECONDS = 5.0
"""How long an answer may take: it takes milliseconds, or the daemon hangs."""

_LISTED = 20
"""Branches that are listed."""


def read_status(path: str) -> dict[str, Any]:
    """The status of the guard mounted on *path*; one that hangs is not waited for longer than `SECONDS`."""
    try:
        found = msgspec.json.decode(bounded(lambda: attribute(path), SECONDS))
    except TimeoutError as error:
        raise GuardError(
            f"{path}: the guard does not answer: {error}", f"`guardfs unmount --force {path}` clears it away"
        ) from None
    except OSError as error:
        raise GuardError(
            f"{path}: the guard does not answer: {error.strerror}",
            f"`guardfs unmount --force {path}` clears it away",
        ) from None
    except msgspec.MsgspecError as error:
        raise GuardError(
            f"{path}: unreadable status: {error}", "is a guardfs of another version mounted there?"
        ) from None
    if not isinstance(found, dict):
        raise GuardError(f"{path}: unreadable status", "is a guardfs of another version mounted there?")
    return found


def attribute(path: str, tries: int = 5) -> bytes:
    """The raw value of the guard's attribute of *path*; asked for again where it has outgrown its size between two
    system calls."""
    for last in range(tries, 0, -1):
        try:
            value: bytes = xattr.getxattr(path, ATTRIBUTE)
            return value
        except OSError as error:
            if error.errno != errno.ERANGE or last == 1:
                raise
    raise AssertionError("unreachable")


@click.command(
    "status", epilog="Example:  guardfs status ~/.openclaw/agents/main/sessions --json | jq .audit"
)
@click.argument("path", metavar="[DIR | TRANSCRIPT]", required=False)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: a list, one object a guard, or a transcript's fences; with --check what is wrong.",
)
@click.option(
    "--check", is_flag=True, help="Print nothing unless something is wrong; exit 1 then (for health checks)."
)
def command(path: str | None, as_json: bool, check: bool) -> int:
    """Show every guarded directory, or the one that DIR lies in; of a TRANSCRIPT, who relies on it now.

    Exit status 0: guarded and well. 1: not guarded, or something needs attention (the log cannot be written,
    events were lost, a branch cannot be rebased, the guard is switched off or had an error of its own).
    """
    wanted = guard_of(path) if path else None
    if path and wanted is not None and not check and not _is_directory(path, wanted):
        return fences_of(path, wanted, as_json)
    guards = [wanted] if path else [guard.path for guard in device.guards()]
    found, troubles = [], []
    for each in dict.fromkeys(filter(None, guards)):
        try:
            found.append(read_status(each))
        except GuardError as error:  # one guard that does not answer must not hide the others
            if path:
                raise
            troubles.append(str(error))
    silent = list(troubles)
    troubles += [trouble for facts in found for trouble in attention(facts)]
    if not found and not troubles:
        troubles = [f"{path}: not guarded" if path else "nothing is guarded"]
    if check and as_json:
        well = {
            "healthy": not troubles,
            "guards": [facts["mountpoint"] for facts in found],
            "troubles": troubles,
        }
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(well), indent=2).decode() + "\n")
    elif check:
        if troubles:
            sys.stderr.write("".join(f"guardfs: {trouble}\n" for trouble in troubles))
    elif as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    elif not found:
        sys.stdout.write(f"{troubles[0]}\n")
    else:
        sys.stdout.write("\n".join(_shown(facts) for facts in found))
        sys.stderr.write("".join(f"guardfs: {trouble}\n" for trouble in silent))
    return 1 if troubles else 0


def fences_of(path: str, guard: str, as_json: bool) -> int:
    """Show who relies on the transcript *path* below *guard* now. It need not exist: a first turn relies on that."""
    name = os.path.relpath(os.path.realpath(path), guard)
    try:
        found = msgspec.json.decode(attribute(path))["fences"]
    except FileNotFoundError:
        found = [each for each in read_status(guard)["fences"]["list"] if each["path"] == name]
        if not found:
            raise GuardError(
                f"{path}: no such file or directory, and nobody relies on that", "check the path"
            ) from None
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        raise GuardError(f"{path}: no transcript", "the guard's policy says which files are") from None
    if as_json:
        facts = {"transcript": name, "mountpoint": guard, "fences": found}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
        return 0
    bold, dim, _, end = _colours()
    sys.stdout.write(f"{bold}{safe(path)}{end}\n")
    rows = [_fence(each) for each in found] or ["nobody relies on it now"]
    for number, row in enumerate(rows):
        sys.stdout.write(f"  {dim}{'fences' if number == 0 else '':<11}{end}{row}\n")
    return 0


def _fence(fence: dict[str, Any]) -> str:
    """One open fence: who relies on the transcript, since when."""
    text = f"token {fence['token']}, {safe(fence['owner'])}[{fence['tgid']}], open for {ago(fence['age_ms'] / 1000)}, "
    text += f"silent for {ago(fence['silent_ms'] / 1000)}"
    changes = fence["changes"]
    text += f", {changes} change{'s' if changes > 1 else ''} since it looked" if changes else ""
    return text + (", at work" if fence["locked"] else "")


def guard_of(path: str) -> str | None:
    """The guarded directory that *path* is, or lies in. A transcript need not exist."""
    plain = os.path.abspath(path)
    if any(guard.path == plain for guard in device.guards()):
        return plain  # without a touch: it may hang
    real = os.path.realpath(path)
    best = None
    for guard in device.guards():
        if real == guard.path or real.startswith(guard.path + "/"):
            best = guard.path
    if best is None and not os.path.lexists(path):
        raise GuardError(f"{path}: no such file or directory", "check the path")
    return best


def _is_directory(path: str, guard: str) -> bool:
    return os.path.abspath(path) == guard or os.path.isdir(path)


def attention(facts: dict[str, Any]) -> list[str]:
    """What an operator should look at, a line each."""
    where = facts.get("mountpoint", "?")
    audit, errors = facts.get("audit", {}), facts.get("internal_errors", {})
    found = []
    if audit.get("failing"):
        found.append(f"{where}: the audit log cannot be written: {audit.get('error') or 'unknown reason'}")
    if audit.get("gaps") or audit.get("dropped"):
        found.append(
            f"{where}: {audit.get('dropped', 0)} events are missing from the log, in {audit.get('gaps', 0)} gaps"
        )
    if facts.get("policy", {}).get("error"):
        found.append(f"{where}: the policy's file is not what is in force: {facts['policy']['error']}")
    if facts.get("policy", {}).get("mode") == "off":
        found.append(f"{where}: the guard is switched off; `guardfs mode policy {where}` ends that")
    branches = facts.get("branches", {})
    if branches.get("failing"):
        found.append(
            f"{where}: {_count(branches['failing'], 'branch', 'es')} cannot be rebased; `guardfs flush` says why"
        )
    if branches.get("given_up"):
        found.append(
            f"{where}: after internal errors {_count(branches['given_up'], 'transcript')} will only be recorded "
            "until the next mount"
        )
    if errors.get("count"):
        found.append(
            f"{where}: {errors['count']} internal errors, the last in {errors.get('last')}; see the daemon's log"
        )
    return found


def _restarts(daemon: dict[str, Any]) -> str:
    """How often another daemon has taken over this mount, and why the last one did."""
    count = daemon.get("restarts", 0)
    if not count:
        return ""
    when = ago(time.time() - daemon["restart_ns"] / 1e9)
    return f", restarted {count} time{'s' if count > 1 else ''}, {when} ago ({safe(daemon['restart_cause'])})"


def _policy(policy: dict[str, Any]) -> str:
    reloads = policy["reloads"]
    text = f"{policy['source']}, {policy['lanes']} lanes, {len(policy['hits'])} rules, "
    text += f"in force for {ago(time.time() - policy['since_ns'] / 1e9)}"
    return text + (f", {reloads} reload{'s' if reloads > 1 else ''}" if reloads else "")


def _serving(supervisor: Any) -> list[tuple[str, str]]:
    found = addresses(supervisor)
    return [("serves", ", ".join(found))] if found else []


def _sessions(sessions: dict[str, Any]) -> list[tuple[str, str]]:
    """The registry that gives sessions their names, if it was found."""
    if not sessions.get("reads") and not sessions.get("broken"):
        return []
    text = f"{sessions['sessions']} named by {sessions['file'] or 'the registry'}"
    return [("sessions", text + (f", which is broken: {sessions['error']}" if sessions.get("error") else ""))]


def _fences(fences: dict[str, Any]) -> list[tuple[str, str]]:
    """What relies on which transcript now, and what became of those before."""
    counts = f"{fences['open']} open, {fences['opened']} opened, {fences['incidents']} broken"
    counts += f", {fences['forgotten']} with forgotten records" if fences["forgotten"] else ""
    rows = [f"{short(each['path'])}  {_fence(each)}" for each in fences["list"]]
    more = fences["open"] - len(rows)
    rows += [f"and {more} more"] if more > 0 else []
    return [("fences", counts), *(("", row) for row in rows)]


def _branches(branches: dict[str, Any], fences: dict[str, Any]) -> list[tuple[str, str]]:
    """What waits for fences to close, and what became of what waited before; nothing where there never was any."""
    counts = [f"{branches['open']} waiting"]
    if branches["oldest_ns"] is not None:
        counts[0] += (
            f" ({branches['bytes']:,} bytes, the oldest {ago(time.time() - branches['oldest_ns'] / 1e9)})"
        )
    counts.append(f"{branches['merged']} rebased")
    words = {
        "ghosts": "files without their name",
        "conflicts": "conflicts",
        "failed": "failed to be rebased",
        "passed": "not staged, went through",
        "given_up": "transcripts given up",
    }
    counts += [f"{branches[key]} {word}" for key, word in words.items() if branches[key]]
    if not (branches["enforcing"] or branches["open"] or len(counts) > 2 or branches["merged"]):
        return []
    turns = f"{fences['saved']} turns saved, {fences['incidents']} lost"
    rows = [("branches", ", ".join(counts)), ("", turns)]
    for each in branches["list"][:_LISTED]:
        rows.append(("", _branch(each)))
    more = branches["open"] + branches["ghosts"] - min(_LISTED, len(branches["list"]))
    return [*rows, *([("", f"and {more} more; `guardfs state` lists them")] if more > 0 else [])]


def _branch(each: dict[str, Any]) -> str:
    if "ghost" in each:
        return f"{short(each['path'])}  is {short(each['file'])} until its owner lets go"
    text = f"{short(each['path'])}  branch {each['branch']} of {safe(each['lane'])}, {each['bytes']:,} bytes"
    return text + (f", cannot be rebased: {safe(each['error'])}" if each["error"] else "")


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{plural if number != 1 else ''}"


def _mode(facts: dict[str, Any]) -> str:
    from guardfs.cli.mode import by_whom

    policy = facts["policy"]
    text = f"{policy['mode']}, {by_whom(policy['mode'], policy['mode_from'])}"
    old = policy["old_fences"]
    return (
        text + (f"; {_count(old, 'open fence')} from before" if old else "") + f"; guardfs {facts['version']}"
    )


def _hits(hits: dict[str, int]) -> list[tuple[str, str]]:
    """How often each rule has decided, in the order of the policy."""
    width = max(map(len, hits), default=0)
    shown = [f"{safe(name):<{width}}  {count}" for name, count in hits.items()]
    return [("rules" if number == 0 else "", row) for number, row in enumerate(shown)]


def ago(seconds: float) -> str:
    """A span of time in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _colours() -> tuple[str, str, str, str]:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return ("\033[1m", "\033[2m", "\033[31m", "\033[0m") if colour else ("", "", "", "")


def _shown(facts: dict[str, Any]) -> str:
    bold, dim, red, end = _colours()
    daemon, audit = facts["daemon"], facts["audit"]
    changes = sum(
        facts["operations"].get(op, 0)
        for op in "create write setattr rename link symlink unlink mkdir rmdir mknod setxattr removexattr".split()
    )
    rows = [
        ("mode", _mode(facts)),
        ("policy", _policy(facts["policy"])),
        *_hits(facts["policy"]["hits"]),
        (
            "daemon",
            f"pid {daemon['pid']}, supervisor {daemon['supervisor']}, "
            f"up {ago(time.time() - daemon['started_ns'] / 1e9)}{_restarts(daemon)}",
        ),
        (
            "memory",
            f"{daemon['resident'] / 1e6:.1f} MB, {daemon['descriptors']} descriptors, {facts['nodes']} files known",
        ),
        (
            "operations",
            f"{sum(facts['operations'].values())} answered, {changes} of them changes, {facts['handles']} open files",
        ),
        (
            "log",
            f"{audit['file']}, level {audit['level']}, event {audit.get('seq', 0)}, {audit.get('queued', 0)} waiting",
        ),
        *_serving(daemon["supervisor"]),
        *_sessions(facts["sessions"]),
        *_fences(facts["fences"]),
        *_branches(facts["branches"], facts["fences"]),
        ("unseen", f"{facts['unseen_changes']} changes that did not come through the mount"),
    ]
    if not facts.get("sees_all_processes", True):
        rows.append(
            ("rights", "without CAP_SYS_PTRACE: the executables of other users' processes are not known")
        )
    text = f"{bold}{facts['mountpoint']}{end}\n"
    text += "".join(f"  {dim}{name:<11}{end}{value}\n" for name, value in rows)
    return text + "".join(f"  {red}attention{end}  {trouble}\n" for trouble in attention(facts))
