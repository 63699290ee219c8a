"""`guardfs explain`: why an operation got its lane and its verdict, and of what a turn died."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

import click
import msgspec

from guardfs.audit.facts import EventReader, Outcome, outcome_of
from guardfs.audit.read import decode, events, events_backward
from guardfs.cli.explain_line import explain_line, explain_notice
from guardfs.cli.logs import find
from guardfs.cli.policy_of import Named, named_by
from guardfs.cli.story import Story
from guardfs.errors import GuardError
from guardfs.policy import model
from guardfs.policy.decide import Decider
from guardfs.policy.examples import facts_of
from guardfs.policy.explain import Explanation, explain
from guardfs.policy.facts import Facts
from guardfs.policy.files import Files
from guardfs.policy.load import Loaded, load
from guardfs.policy.problem import PolicyError
from guardfs.policy.users import ids

DEFAULT_POLICY = "record"

_Events = Iterable[Mapping[str, Any] | None]


def _choice(literal: Any) -> click.Choice[str]:
    return click.Choice(get_args(literal))


@click.command(
    name="explain",
    epilog="Examples:  guardfs explain --event 1042 --audit audit.jsonl   "
    "guardfs explain --policy ./my.toml --op append --exe /usr/bin/rsync --fence other   "
    "guardfs explain --log-line 'lane task error: ...'",
)
@click.argument("directory", metavar="[DIR]", required=False)
@click.option(
    "--event", metavar="SEQ", help="The event of this number; -: a line of a log on standard input."
)
@click.option(
    "--log-line",
    metavar="TEXT",
    help="An error of the gateway's own log: who broke that turn. -: standard input.",
)
@click.option("--audit", metavar="FILE", help="The log that the event is in, instead of that of DIR's guard.")
@click.option(
    "--policy", metavar="NAME|FILE", help="Explain by this policy (default: the one the log names)."
)
@click.option("--op", type=_choice(model.OperationClass), help="Describe an operation: its class.")
@click.option("--path", metavar="PATH", help="... on this path, below the mount.")
@click.option("--to", metavar="PATH", help="... renamed or linked to this one.")
@click.option("--file", type=_choice(model.FileClass), help="... if the path does not tell.")
@click.option("--exe", metavar="PATH", help="... by this executable.")
@click.option("--args", metavar="TEXT", help="... with these arguments, joined by spaces.")
@click.option("--thread", metavar="NAME", help="... from the thread of this name.")
@click.option("--main/--pool", default=None, help="... from the process's first thread, or another.")
@click.option("--user", metavar="NAME|N", help="... as this user.")
@click.option("--group", metavar="NAME|N", help="... and this group.")
@click.option("--container", metavar="ID", help="... in this container.")
@click.option(
    "--ancestor", "ancestors", multiple=True, metavar="NAME", help="... below this process; repeat."
)
@click.option("--record-type", metavar="T", help="... writing a record of this type.")
@click.option("--record-role", metavar="R", help="... of this role.")
@click.option("--record-id", metavar="ID", help="... with this id.")
@click.option("--record-provider", metavar="P", help="... and this provider.")
@click.option("--record-model", metavar="M", help="... and this model.")
@click.option("--continues", type=_choice(model.Chain), help="... continuing whose last record.")
@click.option("--fence", type=_choice(model.FenceRelation), help="... while this fence is open.")
@click.option("--lock", type=_choice(model.LockRelation), help="... while this one holds the lock.")
@click.option("--claim", metavar="LANE", help="... claiming this lane by user.guardfs.lane.")
@click.option("--environment-claim", metavar="LANE", help="... claiming this lane by GUARDFS_LANE.")
@click.option("--json", "as_json", is_flag=True, help="All that was tried, as JSON.")
def command(
    directory: str | None,
    event: str | None,
    log_line: str | None,
    audit: str | None,
    policy: str | None,
    as_json: bool,
    **said: Any,
) -> int:
    """Say why an operation gets its lane, its rule and its verdict: every lane and rule that is tried, and what each
    asked and found.

    The operation is an event of a log, or described by options; what is not described is unknown. Of an incident, or
    of an error of the gateway's own log (--log-line), tell who broke which turn, how, and which versions die of it.

    Exit status 0: explained. 1: no incident fits the --log-line. 2: it cannot be told.
    """
    if directory is not None and audit is not None:
        raise click.UsageError("DIR and --audit both name a log; leave one out")
    described = {key: value for key, value in said.items() if value not in (None, ())}
    if log_line is not None:
        if event is not None or described or policy is not None:
            raise click.UsageError(
                "--log-line says what to explain, and needs no policy; leave the others out"
            )
        return explain_line(log_line, directory, audit, as_json)
    if event is None and not described:
        raise click.UsageError("say which operation: --event SEQ, or --op, --path, --exe and so on")
    if event is not None and described:
        raise click.UsageError("--event names an operation and other options describe one; leave one out")
    notes: list[str] = []
    logged: Outcome | None = None
    if event is None:
        named = None if policy else _named_by(_any_log(directory, audit))
        loaded = _policy(policy, named, notes)
        facts, title = _described(described, loaded), "an operation as described"
    else:
        if event == "-":
            found: _Events = (decode(line) for line in sys.stdin.buffer)
            seq, where = None, "standard input"
        else:
            seq, where = _seq(event), _one_log(directory, audit)
            found = (line.event for line in events(where))
        try:
            taken, named = _until(found, seq, where)
        except _NoOperationError:
            if seq is None or not explain_notice(where, seq, as_json):
                raise
            return 0
        loaded = _policy(policy, named, notes)
        facts, logged, title = _of_event(taken, loaded, notes)
    explanation = explain(Decider(loaded.policy, ids), facts)
    if as_json:
        _print_json(loaded, facts, explanation, notes, logged)
    else:
        sys.stdout.write(_story(f"{title}, by the policy {loaded.source}", facts, explanation, notes, logged))
    return 0


# ---- the operation


def _described(said: dict[str, Any], loaded: Loaded) -> Facts:
    record = None
    keys = ("type", "role", "id", "provider", "model")
    values = {key: said.get(f"record_{key}") for key in keys}
    if any(values.values()) or "continues" in said:
        record = model.ExampleRecord(**values, continues=said.get("continues"))
    process = model.ExampleProcess(
        exe=said.get("exe"),
        args=(said["args"],) if "args" in said else (),
        thread=said.get("thread", ""),
        main=said.get("main", True),
        user=_id(said.get("user")),
        group=_id(said.get("group")),
        container=said.get("container"),
        ancestors=said.get("ancestors", ()),
    )
    described = model.ExampleEvent(
        operation=said.get("op", "append"),
        path=said.get("path", "example.jsonl"),
        to=said.get("to"),
        file=said.get("file"),
        process=process,
        record=record,
        fence=said.get("fence", "none"),
        lock=said.get("lock", "free"),
        claim=model.ExampleClaim(said.get("environment_claim"), said.get("claim")),
    )
    return facts_of(described, Files(loaded.policy.transcripts), ids)


def _id(text: str | None) -> int | str:
    if text is None:
        return -1
    return int(text) if text.isdecimal() else text


class _Taken(NamedTuple):
    event: Mapping[str, Any]
    process: Mapping[str, Any] | None


class _NoOperationError(GuardError):
    """The event is something that the guard itself says: perhaps an incident."""


def _until(found: _Events, seq: int | None, where: str) -> tuple[_Taken, Named | None]:
    """The event *seq* (None: the last operation), what describes its process, and the policy in force then."""
    named: Named | None = None
    last: Mapping[str, Any] | None = None
    processes: dict[str, Mapping[str, Any]] = {}
    first = highest = None
    for event in found:
        if event is None:
            continue
        number, writer = event.get("seq"), event.get("writer")
        if isinstance(number, int):
            first, highest = first if first is not None else number, number
        if seq is not None and number == seq:
            if not isinstance(writer, dict):
                notice = f"{where}: event {seq} is a notice of the guard ({event.get('op')})"
                raise _NoOperationError(notice, "name an operation or an incident")
            last = event
            break
        if isinstance(writer, dict):
            last = event if seq is None else None
        elif event.get("op") == "process":
            processes[_identity(event)] = event
        else:
            named = named_by(event) or named
    if last is None:
        there = f"it has {first} to {highest}" if first is not None else "it is empty"
        if seq is None:
            raise GuardError(f"{where}: no operation of a log", "give one line of an audit log")
        raise GuardError(f"{where}: no event {seq}", there)
    return _Taken(last, processes.get(_identity(last["writer"]))), named


def _identity(process: Mapping[str, Any]) -> str:
    """What tells a process from all others, whatever the log holds there."""
    return repr([process.get(key) for key in ("tgid", "start", "exe")])


def _of_event(taken: _Taken, loaded: Loaded, notes: list[str]) -> tuple[Facts, Outcome, str]:
    reader = EventReader(Files(loaded.policy.transcripts))
    if taken.process is not None:
        reader.read(taken.process)
    try:
        facts = reader.read(taken.event)
    except ValueError as error:
        raise GuardError(
            f"the event cannot be explained: {error}", "give a line as the guard wrote it"
        ) from error
    assert facts is not None
    if reader.incomplete:
        notes.append("the log does not describe the process, so its arguments and parents are unknown")
    if facts.writer.process is not None and any("***" in arg for arg in facts.writer.process.args):
        notes.append("the log masks some arguments; a condition on them may hold all the same")
    title = (
        f"event {taken.event.get('seq', '?')} of {taken.event.get('time', '?')}, a {taken.event.get('op')}"
    )
    return facts, outcome_of(taken.event), title


def _seq(text: str) -> int:
    if not text.isdecimal():
        raise click.UsageError(
            f"--event {text!r}: not a number; give the event's seq, or - for standard input"
        )
    return int(text)


# ---- the log, and the policy


def _one_log(directory: str | None, audit: str | None) -> str:
    logs = find(directory, audit)
    if len(logs) > 1:
        mounts = ", ".join(log.mount or log.file for log in logs)
        raise GuardError(
            f"several guards are mounted: {mounts}", "name one as DIR, or a log with --audit FILE"
        )
    return logs[0].file


def _any_log(directory: str | None, audit: str | None) -> str | None:
    """The log to take the policy's name from; none where none was named and no single guard is mounted."""
    if directory is not None or audit is not None:
        return _one_log(directory, audit)
    try:
        return _one_log(None, None)
    except GuardError:
        return None


def _named_by(log: str | None) -> Named | None:
    if log is None:
        return None
    found: Iterator[Named | None] = (named_by(line.event) for line in events_backward(log) if line.event)
    return next((named for named in found if named is not None), None)


def _policy(wanted: str | None, named: Named | None, notes: list[str]) -> Loaded:
    if wanted is not None:
        return load(wanted, trust=False)
    if named is None:
        notes.append(
            f"no policy is named, so this is the one that ships as {DEFAULT_POLICY!r}; --policy names another"
        )
        return load(DEFAULT_POLICY)
    try:
        loaded = load(named.source, trust=False)
    except PolicyError as error:
        notes.append(
            f"the log names a policy that cannot be used ({error}); this is {DEFAULT_POLICY!r} instead"
        )
        return load(DEFAULT_POLICY)
    if named.digest and named.digest != loaded.digest:
        notes.append(f"{loaded.source} is not what it was when this was logged")
    return loaded


# ---- printing


def _print_json(
    loaded: Loaded, facts: Facts, explanation: Explanation, notes: list[str], logged: Outcome | None
) -> None:
    found: dict[str, Any] = {
        "policy": {"source": loaded.source, "digest": loaded.digest},
        "notes": notes,
        "facts": msgspec.to_builtins(_readable(facts)),
        **msgspec.to_builtins(explanation),
    }
    if logged is not None:
        found["logged"] = logged._asdict()
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _readable(facts: Facts) -> dict[str, Any]:
    found = msgspec.structs.asdict(facts)
    for key in ("path", "to"):
        if found[key] is not None:
            found[key] = found[key].decode("utf-8", "backslashreplace")
    return found


def _story(
    title: str, facts: Facts, explanation: Explanation, notes: list[str], logged: Outcome | None
) -> str:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = sys.stdout.encoding or "utf-8"
    try:
        "✓✗".encode(encoding)
        marks = ("✓", "✗")
    except UnicodeEncodeError:
        marks = ("+", "-")
    text = Story(colour=colour, marks=marks).text(title, facts, explanation, notes, logged)
    return text.encode(encoding, "backslashreplace").decode(encoding)
