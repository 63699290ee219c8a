"""Incidents as a log tells them, joined with what it knows of the processes, and said in words. Pure.

An `Incident` here is the notice of that name as it stands in the log (`guardfs.audit.fences`). Nothing in this room
ever sees the text of a message: the log has none.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from guardfs.audit.levels import CHANGES
from guardfs.audit.show import safe, short
from guardfs.fence.changes import Content
from guardfs.fence.fingerprint import ABSENT, Fingerprint, difference
from guardfs.fence.versions import Answer, Rule, answers
from guardfs.transcript.meta import RecordMeta

PROCESSES = 16_384
THREADS = 65_536
OPERATIONS = 16_384
"""Remembered of one log; the oldest are given up."""

SHELLS = frozenset("sh bash dash zsh ash ksh busybox python python3 perl ruby node bun deno".split())
"""Programs whose first argument says more than they do themselves."""


class Who(msgspec.Struct, frozen=True, omit_defaults=True):
    """One writer. start: clock ticks after boot. program: path of the executable. args: as the log has them, masked.
    parents: from the parent up."""

    lane: str = ""
    tid: int = 0
    tgid: int = 0
    start: int = 0
    main: bool = False
    comm: str = ""
    program: str = ""
    args: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    container: str | None = None

    @property
    def name(self) -> str:
        """As `guardfs tail` writes it: ``cron/cron.sh[7001]``; ``+``: not the process's first thread."""
        names = [self.lane] if self.comm == self.lane else [self.lane, self.comm]
        text = "/".join(name for name in names if name)
        if not self.tid and not self.tgid:
            return safe(text or "?")
        return safe(f"{text or '?'}[{self.tid or self.tgid}{'' if self.main or not self.tid else '+'}]")

    @property
    def command(self) -> str:
        """The executable, and the script that it runs. Never what follows ``-c``: that may be anything."""
        base = self.program.rpartition("/")[2].rstrip("0123456789.")
        script = self.args[1] if len(self.args) > 1 else ""
        if base not in SHELLS or not script:
            return safe(self.program)
        if script.startswith("-"):
            return safe(f"{self.program} {script} …") if script == "-c" else safe(self.program)
        return safe(f"{self.program} {script[:80]}")


class State(msgspec.Struct, frozen=True):
    """What an agent remembers of a file; times in ns since the epoch."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.dev, self.ino, self.size, self.mtime_ns, self.ctime_ns)


class Actor(msgspec.Struct, frozen=True):
    """Who made a change, as the fence machine has it."""

    lane: str = ""
    tid: int = 0
    tgid: int = 0
    start: int = 0
    main: bool = False


class Change(msgspec.Struct, frozen=True):
    """One change during a fence. before, after: None for a file that was not there; absent: not known."""

    time: str = ""
    change: str = ""
    by: Actor | None = None
    before: State | msgspec.UnsetType | None = msgspec.UNSET
    after: State | msgspec.UnsetType | None = msgspec.UNSET
    records: tuple[RecordMeta, ...] = ()
    to: str | None = None
    own: bool = False
    continues: bool = False
    locked: bool = False

    def text(self) -> str:
        """Operation, records and size: ``append message/user bf09c3d4, 462 bytes``."""
        link = self.change == "attributes" and self.to is not None
        parts = ["hard link" if link else self.change]
        if self.records:
            parts.append(", ".join(map(record_text, self.records[:3])))
        if self.to is not None:
            parts.append(f"{'from' if self.change == 'rename over' else 'to'} {short(self.to)}")
        text = " ".join(parts)
        if isinstance(self.before, State) and isinstance(self.after, State):
            grown = self.after.size - self.before.size
            if grown:
                text += f", {grown:,} bytes" if grown > 0 else f", {-grown:,} bytes gone"
        return safe(text)


class Process(msgspec.Struct, frozen=True):
    tgid: int = 0
    start: int = 0


class Incident(msgspec.Struct, frozen=True):
    """One failed check. Times: UTC, as in events. expected, seen: None: no file. after_ms: from the owner's last look
    to the culprit; before_ms: from there to the check. count: of all changes, of which `changes` are the kept ones."""

    time: str
    kind: str
    outcome: str
    seq: int = 0
    path: str = ""
    session: str = ""
    token: int = 0
    owner: str = ""
    process: Process = Process()
    opened: str = ""
    expected: State | None = None
    seen: State | None = None
    baseline_time: str = ""
    culprit: Change | None = None
    changes: tuple[Change, ...] = ()
    count: int = 0
    after_ms: float = 0
    before_ms: float = 0
    version_rule: str = ""
    content: Content = Content()

    def versions(self) -> list[tuple[Rule, Answer]]:
        """What each known OpenClaw version would have made of this check."""
        expected = self.expected.fingerprint if self.expected else ABSENT
        seen = self.seen.fingerprint if self.seen else ABSENT
        return answers(expected, seen, self.content)

    def difference(self) -> str:
        """What the owner found, in words, compared with what it expected."""
        before = self.expected.fingerprint if self.expected else ABSENT
        after = self.seen.fingerprint if self.seen else ABSENT
        grown = after.size - before.size
        times = "mtime and ctime" if before.mtime_ns != after.mtime_ns else "ctime"
        return {
            "same": "as it was",
            "times": f"same size, another {times}",
            "grown": f"{grown:,} bytes more",
            "shrunk": f"{-grown:,} bytes less",
            "replaced": "another file under the name",
            "created": f"{after.size:,} bytes where there was no file",
            "gone": "no file",
            "rewritten": "rewritten",
        }[difference(before, after)]


class Forgotten(msgspec.Struct, frozen=True):
    """Records on a branch that nobody continues from: no death."""

    time: str
    seq: int = 0
    path: str = ""
    session: str = ""
    token: int = 0
    owner: str = ""
    process: Process = Process()
    changes: tuple[Change, ...] = ()


class Gatherer:
    """Takes the events of one log in order; knows then who a process was, and what an incident says."""

    def __init__(self) -> None:
        self._processes: OrderedDict[tuple[int, int], Mapping[str, Any]] = OrderedDict()
        self._threads: OrderedDict[tuple[int, int, int], tuple[str, str]] = OrderedDict()
        self._operations: OrderedDict[tuple[str, int], tuple[int, str]] = OrderedDict()
        self.strange = 0
        """Notices that could not be read."""

    def take(self, event: Mapping[str, Any]) -> Incident | Forgotten | None:
        """The incident that *event* tells, if it does."""
        writer = event.get("writer")
        op = event.get("op")
        if isinstance(writer, dict):
            self._writer(writer)
            if isinstance(op, str) and op in CHANGES and ("session" in event or op in ("unlink", "rename")):
                self._operation(event, writer)
            return None
        if op == "process":
            tgid, start = event.get("tgid"), event.get("start")
            if isinstance(tgid, int) and isinstance(start, int):
                _keep(self._processes, (tgid, start), event, PROCESSES)
        elif op == "incident" or op == "forgotten":
            try:
                if op == "incident":
                    return msgspec.convert(event, Incident)
                return msgspec.convert(event, Forgotten)
            except msgspec.ValidationError:
                self.strange += 1
        return None

    def who(self, actor: Actor) -> Who:
        """All that the log has said of *actor* so far."""
        comm, exe = self._threads.get((actor.tgid, actor.start, actor.tid), ("", ""))
        if not comm:
            comm, exe = self._threads.get((actor.tgid, actor.start, actor.tgid), ("", exe))
        facts = self._processes.get((actor.tgid, actor.start), {})
        args, parents = facts.get("args"), facts.get("parents")
        container = facts.get("container")
        return Who(
            actor.lane,
            actor.tid,
            actor.tgid,
            actor.start,
            actor.main,
            comm,
            exe or str(facts.get("exe") or ""),
            tuple(map(str, args)) if isinstance(args, list) else (),
            tuple(str(each.get("comm") or "?") for each in parents if isinstance(each, dict))
            if isinstance(parents, list)
            else (),
            container if isinstance(container, str) else None,
        )

    def did(self, change: Change) -> str:
        """As `Change.text`; of a change of attributes also which."""
        return (self._event_of(change)[1] if change.change == "attributes" else "") or change.text()

    def seq(self, change: Change) -> int:
        """The number of the event that tells of *change*; 0 where it is not known (any more)."""
        return self._event_of(change)[0]

    def of_writer(self, event: Mapping[str, Any], writer: Mapping[str, Any]) -> Who:
        """Who did the operation *event*, which has that writer."""
        numbers = (writer.get(key) for key in ("tid", "tgid", "start"))
        tid, tgid, start = (number if isinstance(number, int) else 0 for number in numbers)
        return self.who(Actor(str(event.get("lane") or ""), tid, tgid, start, writer.get("main") is True))

    def process(self, tgid: int) -> Who | None:
        """The latest process with that id; None where the log has told of none."""
        for known, start in reversed(self._processes):
            if known == tgid:
                return self.who(Actor("", tgid, tgid, start, True))
        return None

    def owner(self, found: Incident | Forgotten) -> Who:
        """The fence's owner: a process."""
        process = found.process
        return self.who(Actor(found.owner, process.tgid, process.tgid, process.start, True))

    def culprit(self, incident: Incident) -> Who | None:
        """Who is to blame; None where nobody was seen."""
        change = incident.culprit
        return None if change is None or change.by is None else self.who(change.by)

    def _event_of(self, change: Change) -> tuple[int, str]:
        tid = change.by.tid if change.by is not None else -1
        return self._operations.get((change.time, tid), (0, ""))

    def _operation(self, event: Mapping[str, Any], writer: Mapping[str, Any]) -> None:
        time, tid, seq = event.get("time"), writer.get("tid"), event.get("seq")
        if isinstance(time, str) and isinstance(tid, int) and isinstance(seq, int) and not event.get("errno"):
            _keep(self._operations, (time, tid), (seq, attributes_text(event)), OPERATIONS)

    def _writer(self, writer: Mapping[str, Any]) -> None:
        tgid, start, tid = writer.get("tgid"), writer.get("start"), writer.get("tid")
        if isinstance(tgid, int) and isinstance(start, int) and isinstance(tid, int):
            known = (str(writer.get("comm") or ""), str(writer.get("exe") or ""))
            key = (tgid, start, tid)
            if self._threads.get(key) != known:
                _keep(self._threads, key, known, THREADS)


class Summary:
    """Counts over incidents: by culprit lane, by operation, by outcome."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.lanes: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.sessions: Counter[str] = Counter()
        self.forgotten = 0

    def add(self, found: Incident | Forgotten) -> None:
        """Counts one."""
        if isinstance(found, Forgotten):
            self.forgotten += 1
            return
        self.outcomes[found.outcome] += 1
        self.lanes[culprit_lane(found)] += 1
        self.operations[found.culprit.change if found.culprit else found.kind] += 1
        self.sessions[found.session] += 1


def counts(found: Counter[str]) -> str:
    """``gateway:reset 3, backup-job 2``, the greatest first."""
    return safe(", ".join(f"{name} {number}" for name, number in found.most_common()))


def culprit_lane(incident: Incident) -> str:
    """The culprit's lane, or what stands for it where nobody was seen."""
    by = incident.culprit.by if incident.culprit else None
    if by is None:
        return {"drift": "the file system", "unseen": "below the mount"}.get(incident.kind, "unknown")
    return by.lane or "unknown"


def record_text(record: RecordMeta) -> str:
    """``message/user bf09c3d4``: type, role and the beginning of the id."""
    if record.part or record.invalid:
        return "part of a record" if record.part else "not a record"
    names = [record.type, record.role, record.model if record.provider == "openclaw" else None]
    text = "/".join(name for name in names if name) or ("a long record" if record.oversize else "record")
    return safe(f"{text} {record.id[:8]}" if record.id else text)


def attributes_text(event: Mapping[str, Any]) -> str:
    """Of an operation that changes attributes, which: ``chmod 640``, ``touch``, ``xattr user.a``, ``unlink copy``; ""
    of any other."""
    op, change = event.get("op"), event.get("change")
    if op == "unlink" or op == "rename":  # of a further name: that moves the ctime
        to = event.get("to")
        return f"{op} {short(str(event.get('path')))}" + (f" to {short(to)}" if isinstance(to, str) else "")
    if op == "xattr":
        return safe(f"{'remove ' if event.get('action') == 'remove' else ''}xattr {event.get('name')}")
    if op != "attributes" or not isinstance(change, dict):
        return ""
    parts = []
    if "mode" in change:
        parts.append(f"chmod {change['mode']}")
    if "uid" in change or "gid" in change:
        parts.append(f"chown {change.get('uid', '')}:{change.get('gid', '')}")
    if "mtime_ns" in change or "atime_ns" in change:
        parts.append("touch")
    return safe(", ".join(parts))


def lasted_ms(found: Incident) -> float | None:
    """How long the owner had relied on the transcript at the check that failed; None where the log does not tell."""
    try:
        lasted = datetime.fromisoformat(found.time) - datetime.fromisoformat(found.opened)
    except ValueError:
        return None
    return max(0.0, lasted.total_seconds() * 1000)


def took(ms: float) -> str:
    """A duration for people: ``412 ms``, ``3.0 s``, ``4 min 10 s``."""
    if ms < 1:
        return f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s"


def joined(found: Incident | Forgotten, known: Gatherer, event: Mapping[str, Any]) -> dict[str, Any]:
    """The notice as the log has it, with the facts of the processes and the answer of every version."""
    if isinstance(found, Incident):
        return incident_facts(found, event, known.owner(found), known.culprit(found))
    facts: dict[str, Any] = {**event, "owner_process": msgspec.to_builtins(known.owner(found))}
    facts["writers"] = [msgspec.to_builtins(who) for who in writers(found.changes, known)]
    return facts


def incident_facts(
    found: Incident, event: Mapping[str, Any], owner: Who, culprit: Who | None
) -> dict[str, Any]:
    """The same of an incident whose processes are known."""
    return {
        **event,
        "owner_process": msgspec.to_builtins(owner),
        "culprit_process": None if culprit is None else msgspec.to_builtins(culprit),
        "versions": [
            {"rule": rule.name, "answer": answer, "says": rule.says} for rule, answer in found.versions()
        ],
    }


def writers(changes: Iterable[Change], known: Gatherer) -> list[Who]:
    """Who made *changes*, each once, in order."""
    return list(dict.fromkeys(known.who(each.by) for each in changes if each.by is not None))


def _keep(table: OrderedDict[Any, Any], key: Any, value: Any, limit: int) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > limit:
        table.popitem(last=False)
