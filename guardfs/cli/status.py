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
from guardfs.errors import GuardError
from guardfs.mount import device

ATTRIBUTE = "user.guardfs.status"


def read_status(path: str) -> dict[str, Any]:
    """The status of the guard mounted on *path*."""
    try:
        found = msgspec.json.decode(_attribute(path))
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


def _attribute(path: str, tries: int = 5) -> bytes:
    """The raw value; asked for again where it has outgrown its size between two system calls."""
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
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, one object a guard.")
@click.option(
    "--check", is_flag=True, help="Print nothing unless something is wrong; exit 1 then (for health checks)."
)
def command(directory: str | None, as_json: bool, check: bool) -> int:
    """Show every guarded directory, or the one that DIR lies in.

    Exit status 0: guarded and well. 1: not guarded, or something needs attention (the log cannot be written,
    events were lost, the guard had an error of its own).
    """
    paths = [_guard_of(directory)] if directory else [guard.path for guard in device.guards()]
    found, troubles = [], []
    for path in dict.fromkeys(filter(None, paths)):
        try:
            found.append(read_status(path))
        except GuardError as error:  # one guard that does not answer must not hide the others
            if directory:
                raise
            troubles.append(str(error))
    silent = list(troubles)
    troubles += [trouble for facts in found for trouble in attention(facts)]
    if not found and not troubles:
        troubles = [f"{directory or 'nothing'} is guarded" if not directory else f"{directory}: not guarded"]
    if check:
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


def _guard_of(directory: str) -> str | None:
    """The guarded directory that *directory* is, or lies in."""
    if not os.path.lexists(directory):
        raise GuardError(f"{directory}: no such file or directory", "check the path")
    real = os.path.realpath(directory)
    best = None
    for guard in device.guards():
        if real == guard.path or real.startswith(guard.path + "/"):
            best = guard.path
    return best


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
    if errors.get("count"):
        found.append(
            f"{where}: {errors['count']} internal errors, the last in {errors.get('last')}; see the daemon's log"
        )
    return found


def _policy(policy: dict[str, Any]) -> str:
    reloads = policy["reloads"]
    text = f"{policy['source']}, {policy['lanes']} lanes, {len(policy['hits'])} rules, "
    text += f"in force for {_ago(time.time() - policy['since_ns'] / 1e9)}"
    return text + (f", {reloads} reload{'s' if reloads > 1 else ''}" if reloads else "")


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
    rows = [
        f"{short(each['path'])}  token {each['token']}, {safe(each['owner'])}[{each['tgid']}], "
        f"open for {_ago(each['age_ms'] / 1000)}, silent for {_ago(each['silent_ms'] / 1000)}"
        + (", at work" if each["locked"] else "")
        for each in fences["list"]
    ]
    more = fences["open"] - len(rows)
    rows += [f"and {more} more"] if more > 0 else []
    return [("fences", counts), *(("", row) for row in rows)]


def _hits(hits: dict[str, int]) -> list[tuple[str, str]]:
    """How often each rule has decided, in the order of the policy."""
    width = max(map(len, hits), default=0)
    shown = [f"{safe(name):<{width}}  {count}" for name, count in hits.items()]
    return [("rules" if number == 0 else "", row) for number, row in enumerate(shown)]


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _shown(facts: dict[str, Any]) -> str:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    bold, dim, red, end = ("\033[1m", "\033[2m", "\033[31m", "\033[0m") if colour else ("", "", "", "")
    daemon, audit = facts["daemon"], facts["audit"]
    changes = sum(
        facts["operations"].get(op, 0)
        for op in "create write setattr rename link symlink unlink mkdir rmdir mknod setxattr removexattr".split()
    )
    rows = [
        ("mode", f"{facts['policy']['mode']}, guardfs {facts['version']}"),
        ("policy", _policy(facts["policy"])),
        *_hits(facts["policy"]["hits"]),
        (
            "daemon",
            f"pid {daemon['pid']}, supervisor {daemon['supervisor']}, "
            f"up {_ago(time.time() - daemon['started_ns'] / 1e9)}",
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
        *_sessions(facts["sessions"]),
        *_fences(facts["fences"]),
        ("unseen", f"{facts['unseen_changes']} changes that did not come through the mount"),
    ]
    if not facts.get("sees_all_processes", True):
        rows.append(
            ("rights", "without CAP_SYS_PTRACE: the executables of other users' processes are not known")
        )
    text = f"{bold}{facts['mountpoint']}{end}\n"
    text += "".join(f"  {dim}{name:<11}{end}{value}\n" for name, value in rows)
    return text + "".join(f"  {red}attention{end}  {trouble}\n" for trouble in attention(facts))
