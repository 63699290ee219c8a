"""One guard, running, hung or gone: what it says of itself, what it has left in its state directory and its log.

Each part is got by itself: what cannot be had is said in its place, and keeps nothing else.
"""

from __future__ import annotations

import os
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from guardfs.audit.read import events_backward
from guardfs.bounded import bounded
from guardfs.errors import GuardError
from guardfs.lanes import procfs
from guardfs.mount import libc
from guardfs.serve.plan import Known
from guardfs.state.journal import Entry, entries

EVENTS = 2000
"""Last events: some minutes of a busy gateway."""

NOTICES = 500
"""Last events of the guard's own, from further back."""

_LOOKED_AT = 300_000
"""Events after which no more notices are looked for: a second or two."""

_OWN = frozenset(
    "start stop log policy mode error gap torn unseen incident forgotten branch recovered takeover unguarded".split()
)
_PROC_FIELDS = frozenset(
    "Name State Tgid PPid Threads FDSize VmSize VmHWM VmRSS SigPnd ShdPnd SigBlk CapEff NoNewPrivs Seccomp".split()
)

Facts = dict[str, Any]
Part = Callable[[], Any]


class Looked:
    """What is found of one guard. Paths and names are as they are; scrubbing is done by whoever writes it."""

    def __init__(self, known: Known) -> None:
        self.sessions = known.sessions
        self.status: Facts | None = None
        self.trouble = ""
        try:
            self.status = _ask(known.sessions, "user.guardfs.status")
        except (OSError, ValueError) as error:
            self.trouble = getattr(error, "strerror", None) or str(error)
        status = self.status or {}
        self.state = str(status.get("state", {}).get("dir") or known.state or "")
        self.audit = str(status.get("audit", {}).get("file") or known.audit or "")
        self.events: list[Facts] = []
        self.notices: list[Facts] = []
        self.log_trouble = ""
        self._read_log()

    def parts(self) -> Iterator[tuple[str, Part]]:
        """File names, and what gives their contents: JSON-able, or a list that is written line by line."""
        yield "guard.json", self._summary
        if self.status is not None:
            yield "status.json", lambda: self.status
            yield "counters.json", lambda: _ask(self.sessions, "user.guardfs.counters")
        yield "policy.json", self._policy
        yield "events.jsonl", lambda: self._events(self.events)
        yield "notices.jsonl", lambda: self._events(self.notices)
        yield "journal.json", lambda: [_entry(each) for each in entries(self.state)]
        yield "files.json", self._files
        yield "processes.json", lambda: [found for pid in self.pids() if (found := _process(pid))]

    def pids(self) -> list[int]:
        """The daemon and its supervisor: as it says, or as its log said last."""
        if self.status is not None:
            daemon = self.status.get("daemon", {})
            return [pid for pid in (daemon.get("pid"), daemon.get("supervisor")) if isinstance(pid, int)]
        for event in self.notices:
            if event.get("op") == "start" and _is_daemon(event.get("pid")):
                return [event["pid"], *([parent] if (parent := _parent(event["pid"])) else [])]
        return []

    def _summary(self) -> Facts:
        return {
            "sessions": self.sessions,
            "answers": self.status is not None,
            "trouble": self.trouble,
            "state": self.state,
            "audit": self.audit,
            "log_trouble": self.log_trouble,
            "started_with": next((each for each in self.notices if each.get("op") == "start"), None),
        }

    def _read_log(self) -> None:
        events: deque[Facts] = deque(maxlen=EVENTS)
        notices: deque[Facts] = deque(maxlen=NOTICES)
        try:
            if not self.audit:
                raise GuardError("nobody says where the log is")
            for number, line in enumerate(events_backward(self.audit)):
                event = line.event
                if number >= _LOOKED_AT or (len(events) == EVENTS and len(notices) == NOTICES):
                    break
                if event is None or not {"v", "seq", "prev", "op"} <= event.keys():
                    continue  # whatever it is, it is not the guard's
                if len(events) < EVENTS:
                    events.append(event)
                if event["op"] in _OWN and len(notices) < NOTICES:
                    notices.append(event)
        except (GuardError, OSError) as error:
            self.log_trouble = str(error)
        self.events, self.notices = list(events), list(notices)

    def _events(self, newest_first: list[Facts]) -> list[Facts]:
        if self.log_trouble and not newest_first:
            raise GuardError(self.log_trouble)
        return newest_first[::-1]

    def _policy(self) -> Facts:
        """The policy's file without its comments, which are prose and nobody knows whose."""
        policy = (self.status or {}).get("policy") or self._policy_started()
        source = str(policy.get("source", ""))
        if not source.endswith(".toml"):
            return {"shipped": source}
        with open(source, "rb") as file:
            try:
                return {"source": source, "parsed": tomllib.load(file)}
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                return {"source": source, "broken": str(error)}

    def _policy_started(self) -> Facts:
        started = next((each for each in self.notices if each.get("op") == "start"), {})
        found = started.get("policy")
        return found if isinstance(found, dict) else {}

    def _files(self) -> list[Facts]:
        """The state directory and the logs: names, sizes and modes, no contents."""
        places = [self.state, os.path.join(self.state, "branches")] if self.state else []
        rows = [row for place in places for row in _listing(place)]
        log = os.path.basename(self.audit)
        beside = _listing(os.path.dirname(self.audit)) if self.audit else []
        return rows + [row for row in beside if log and os.path.basename(row["path"]).startswith(log)]


def _ask(sessions: str, attribute: str) -> Facts:
    found = msgspec.json.decode(bounded(lambda: libc.getxattr(sessions, attribute)))
    if not isinstance(found, dict):
        raise ValueError("an answer that is no object")
    return found


def _entry(entry: Entry) -> Facts:
    facts = msgspec.to_builtins(entry)
    for key in ("transcript", "file"):
        facts[key] = getattr(entry, key).decode("utf-8", "backslashreplace")
    return dict(facts)


def _listing(directory: str) -> list[Facts]:
    found = []
    try:
        with os.scandir(directory) as listed:
            for each in listed:
                facts = each.stat(follow_symlinks=False)
                row = {
                    "path": each.path,
                    "bytes": facts.st_size,
                    "mode": f"{facts.st_mode:o}",
                    "mtime": facts.st_mtime,
                }
                found.append(row)
    except OSError as error:
        return [{"path": directory, "error": error.strerror}]
    return sorted(found, key=lambda row: str(row["path"]))


def _is_daemon(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        return b"guardfs.mount.daemon" in procfs.read(f"/proc/{pid}/cmdline", 4096)
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        return int(procfs.status_field(procfs.read(f"/proc/{pid}/status", 8192), b"PPid"))
    except (OSError, ValueError):
        return 0


def _process(pid: int) -> Facts | None:
    """How a process of the guard's is, and where its threads wait. Its environment is not looked at."""
    try:
        args = procfs.read(f"/proc/{pid}/cmdline", procfs.ARGS_LIMIT).rstrip(b"\0").split(b"\0")
        status = procfs.read(f"/proc/{pid}/status", 8192).decode("utf-8", "backslashreplace")
    except OSError:
        return None
    rows = (line.partition(":") for line in status.splitlines())
    return {
        "pid": pid,
        "args": [arg.decode("utf-8", "backslashreplace") for arg in args],
        "status": {name: value.strip() for name, _, value in rows if name in _PROC_FIELDS},
        "threads": [_thread(pid, tid) for tid in _threads(pid)],
    }


def _threads(pid: int) -> list[str]:
    try:
        return sorted(os.listdir(f"/proc/{pid}/task"), key=int)[:100]
    except OSError:
        return []


def _thread(pid: int, tid: str) -> Facts:
    found: Facts = {"tid": int(tid)}
    for name in ("comm", "wchan", "stack"):
        try:
            text = procfs.read(f"/proc/{pid}/task/{tid}/{name}", 8192)
            found[name] = text.decode("utf-8", "backslashreplace").strip().splitlines()
        except OSError:
            found[name] = None
    return found


def environment(pid: int) -> dict[str, str]:
    """The variables of a process: to take their values out of everything else. They are written nowhere."""
    try:
        raw = procfs.read(f"/proc/{pid}/environ", procfs.ENVIRON_LIMIT)
    except OSError:
        return {}
    pairs = (
        item.decode("utf-8", "surrogateescape").partition("=") for item in raw.split(b"\0") if b"=" in item
    )
    return {name: value for name, _, value in pairs}
