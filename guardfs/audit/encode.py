"""From an `Operation` or `Notice` to the body of one line of JSON: everything but ``v``, ``seq`` and
``prev``.

Runs in the log's own thread, but shares the interpreter with the thread that answers the kernel: every
microsecond here is one that a caller may wait. So what repeats is encoded once (a writer, a path, a second)
and lines are put together from bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from guardfs.audit.event import FenceMark, Kind, Notice, Operation
from guardfs.audit.merge import Run
from guardfs.audit.redact import Identities, mask_args
from guardfs.audit.text import clean, json_bytes, name_json, safe_json, session_of
from guardfs.lanes.writer import Process, Writer
from guardfs.policy.facts import Decision
from guardfs.policy.model import Verdict

# fmt: off
RESERVED = frozenset((
    "v", "seq", "prev", "time", "op", "path", "path_b64", "to", "to_b64", "writer", "lane", "session",
    "bytes", "offset", "append", "record", "records", "records_more", "count", "fence", "rule",
    "verdict", "errno", "us", "evidence", "would", "class", "lock", "claim", "branch",
))
# fmt: on
"""Keys that details of an operation cannot take: those are logged as ``x_KEY``."""

ENVELOPE = frozenset(("v", "seq", "prev", "time", "op"))
"""The same for a notice, which has no other keys of its own."""

ABOUT = ENVELOPE | {"path", "path_b64", "session"}
"""The same for a notice about a transcript."""

CACHED_PATHS = 4096
CACHED_WRITERS = 256
"""Paths and writers whose JSON is remembered; all are dropped together, which is cheaper than to keep their order.
A writer holds its process with all its arguments, some kilobytes, and scripts start one process after the other."""


class Body(NamedTuple):
    """One event without its place in the chain.

    process: must have been described in the same file before this line. timed: counts for the log's lag; a
    merged run does not, it is late on purpose.
    """

    text: bytes
    process: Process | None
    time_ns: int
    timed: bool = True


class _Known(NamedTuple):
    fragment: bytes
    process: Process | None


class Sessions(Protocol):
    """Which session a transcript belongs to (`guardfs.mount.sessions`). generation: grows when answers change."""

    @property
    def generation(self) -> int: ...
    def key_of(self, name: bytes) -> str | None: ...


class NoSessions:
    """No registry: a session is called as its transcript."""

    generation = 0

    def key_of(self, name: bytes) -> str | None:
        """None."""
        return None


class Encoder:
    """Encodes for one log. Not thread-safe. `body` never raises for any item that has the types it
    declares."""

    def __init__(self, identities: Identities | None = None, sessions: Sessions | None = None) -> None:
        self._identities = identities
        self._sessions = sessions or NoSessions()
        self._generation = -1
        self._writers: dict[Writer, _Known] = {}
        self._decisions: dict[
            tuple[Decision, Verdict], tuple[bytes, bytes]
        ] = {}  # lane, evidence; rule, verdict
        self._paths: dict[bytes, bytes] = {}
        self._guarded: dict[bytes, tuple[bytes, bytes]] = {}  # path -> path, session
        self._second = -1
        self._second_text = b""

    def body(self, item: Operation | Run | Notice) -> Body:
        """The body of *item*'s event."""
        if isinstance(item, Operation):
            return self._operation(item)
        if isinstance(item, Run):
            return self._operation(item.first, item)
        return self.notice(item)

    def notice(self, item: Notice) -> Body:
        """A notice; its fields stand beside the common keys."""
        about = b""
        if item.path is not None:
            name, session = self._named_transcript(item.path)
            about = b"," + name + session
        facts = self._facts(item.fields, ENVELOPE if item.path is None else ABOUT)
        text = b'%b,"op":%b%b%b}' % (self._time(item.time_ns), safe_json(item.op), about, facts)
        return Body(text, None, item.time_ns)

    def process(self, process: Process, time_ns: int) -> bytes:
        """The event ``process``: what is long about a process, arguments masked."""
        identities = self._identities
        cgroup = clean(process.cgroup) if process.cgroup else None
        facts: dict[str, Any] = {
            "tgid": process.tgid,
            "start": process.start,
            "exe": clean(process.exe) if process.exe is not None else None,
            "args": mask_args([clean(arg) for arg in process.args], identities),
            "parents": [{"pid": pid, "comm": clean(name)} for pid, name in process.parents],
            "cgroup": identities.cgroup(cgroup) if identities and cgroup else cgroup,
            "container": process.container,
            "runtime": process.runtime,
            "pidns": process.pidns,
            "claim": self._named(process.environ_lane) if process.environ_lane is not None else None,
        }
        present = {key: value for key, value in facts.items() if value is not None}
        return b'%b,"op":"process",%b' % (self._time(time_ns), safe_json(present)[1:])

    def _operation(self, item: Operation, run: Run | None = None) -> Body:
        known = self._writers.get(item.writer) or self._know(item.writer)
        path = item.path
        if item.kind is Kind.OTHER:
            name, session = self._paths.get(path) or self._name(path), b""
        else:
            name, session = self._named_transcript(path)
        if item.to is not None:
            name = name + b"," + name_json("to", item.to)
        middle = b""
        size = item.size if run is None else run.size
        if size is not None:
            middle = b',"bytes":%d' % size
        if item.offset is not None:
            middle += b',"offset":%d' % item.offset
        if item.append is not None:
            middle += b',"append":true' if item.append else b',"append":false'
        if item.operation is not None:
            middle += b',"class":"%b"' % item.operation.encode()
        if item.records or item.more:
            middle += _records(item)
        if item.fence is not None:
            middle += b',"fence":%b' % self._fence(item.fence)
        if item.lock != "free":
            middle += b',"lock":"%b"' % item.lock.encode()
        if item.claim is not None:
            middle += b',"claim":%b' % safe_json(self._named(item.claim))
        if item.branch:
            middle += b',"branch":%d' % item.branch
        if run is not None and run.count > 1:
            middle += b',"count":%d' % run.count
        if item.detail:
            middle += self._facts(item.detail)
        decided = (item.decision, item.applied)
        lane, rule = self._decisions.get(decided) or self._decide(*decided)
        text = b'%b,"op":"%b",%b%b%b%b%b%b,"errno":%d,"us":%d}' % (
            self._time(item.time_ns),
            item.op.encode(),
            name,
            known.fragment,
            lane,
            session,
            middle,
            rule,
            item.errno,
            item.us if run is None else run.us,
        )
        return Body(text, known.process, item.time_ns, run is None)

    # ---- parts

    def _time(self, time_ns: int) -> bytes:
        second, micro = divmod(time_ns // 1000, 1_000_000)
        if second != self._second:
            stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second, self._second_text = second, stamp.encode()
        return b'"time":"%b.%06dZ"' % (self._second_text, micro)

    def _know(self, writer: Writer) -> _Known:
        if len(self._writers) >= CACHED_WRITERS:
            self._writers.clear()
        process, identities = writer.process, self._identities
        facts: dict[str, Any] = {
            "tid": writer.tid,
            "tgid": writer.tgid,
            "main": writer.main,
            "comm": clean(writer.comm),
        }
        if process is not None and process.exe is not None:
            facts["exe"] = clean(process.exe)
        facts["uid"] = identities.number(writer.uid) if identities else writer.uid
        facts["gid"] = identities.number(writer.gid, "gid") if identities else writer.gid
        if process is not None:
            facts["start"] = process.start
        if writer.known != "ok":
            facts["known"] = writer.known
        fragment = b',"writer":%b' % safe_json(facts)
        known = self._writers[writer] = _Known(fragment, process)
        return known

    def _fence(self, mark: FenceMark) -> bytes:
        return b'{"token":%d,"owner":%b,"relation":"%b"}' % (
            mark.token,
            safe_json(self._named(mark.owner)),
            mark.relation.encode(),
        )

    def _decide(self, decision: Decision, applied: Verdict) -> tuple[bytes, bytes]:
        """What was decided, as JSON. `verdict` is what was done, `would` what the rule says, where that is not done."""
        if len(self._decisions) >= CACHED_WRITERS:
            self._decisions.clear()
        lane = b',"lane":%b,"evidence":%b' % (
            safe_json(self._named(decision.lane)),
            json_bytes(decision.evidence),
        )
        rule = b',"rule":%b,"verdict":"%b"' % (safe_json(decision.rule), applied.encode())
        if applied == "allow" != decision.verdict:
            rule += b',"would":"%b"' % decision.verdict.encode()
        both = self._decisions[decision, applied] = (lane, rule)
        return both

    def _named(self, label: str) -> str:
        label = clean(label)
        return self._identities.sessions_in(label) if self._identities else label

    def _name(self, path: bytes) -> bytes:
        if len(self._paths) >= CACHED_PATHS:
            self._paths.clear()
        name = self._paths[path] = name_json("path", path)
        return name

    def _named_transcript(self, path: bytes) -> tuple[bytes, bytes]:
        """Name and session of a transcript or lock."""
        generation = self._sessions.generation
        if generation != self._generation:  # read first: what changes after that clears it once more
            self._generation = generation
            self._guarded.clear()
        return self._guarded.get(path) or self._guard(path)

    def _guard(self, path: bytes) -> tuple[bytes, bytes]:
        if len(self._guarded) >= CACHED_PATHS:
            self._guarded.clear()
        session = self._sessions.key_of(path[path.rfind(b"/") + 1 :]) or session_of(path)
        if self._identities:
            session = self._identities.hash(session)
        both = self._guarded[path] = (name_json("path", path), b',"session":%b' % json_bytes(session))
        return both

    def _facts(self, fields: Mapping[str, Any], taken: frozenset[str] = RESERVED) -> bytes:
        """``,"key":value`` for each of *fields*."""
        if not fields:
            return b""
        if not taken.isdisjoint(fields):
            fields = {f"x_{key}" if key in taken else key: value for key, value in fields.items()}
        if self._identities:
            fields = {key: self._hidden(key, value) for key, value in fields.items()}
        return b"," + safe_json(fields)[1:-1]

    def _hidden(self, key: str, value: Any) -> Any:
        assert self._identities is not None
        if isinstance(value, dict):  # an incident's culprit; what a chown changes
            return {name: self._hidden(name, inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._hidden(key, inner) for inner in value]
        if key in ("uid", "gid") and isinstance(value, int):
            return self._identities.number(value, key)
        return self._identities.sessions_in(value) if isinstance(value, str) else value


def _records(item: Operation) -> bytes:
    found = item.records or []
    if len(found) == 1 and not item.more:
        return b',"record":%b' % json_bytes(found[0])
    text = b',"records":%b' % json_bytes(found)
    if item.more:
        text += b',"records_more":%d' % item.more
    return text
