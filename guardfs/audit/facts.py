"""From the lines of an audit log back to the facts that a policy decides by. Pure.

Logs of before there were policies lack some of them: a class is then made from the operation, and what nobody noted is
unknown. Arguments stand in a log masked and cut, so that a condition on them may see less than the guard did.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from guardfs.lanes.writer import Known, Process, Writer
from guardfs.policy.facts import Facts, operation_class
from guardfs.policy.files import Files
from guardfs.policy.model import Chain, FenceRelation, LockRelation, OperationClass
from guardfs.transcript.records import RecordMeta

PROCESSES = 16_384
WRITERS = 16_384
"""Remembered of one log; the oldest are given up."""

_NOBODY = -1

_CLASSES, _FENCES, _LOCKS, _CHAINS, _KNOWN = (
    frozenset(get_args(literal)) for literal in (OperationClass, FenceRelation, LockRelation, Chain, Known)
)


class Outcome(NamedTuple):
    """What was, or is, said of an operation. "-": nothing. verdict: that of the rule, applied or not."""

    lane: str
    rule: str
    verdict: str


class EventReader:
    """Reads the events of one log, in order.

    files: what paths are to the policy that is to decide. incomplete: whether the process behind the last facts was not
    described in the log, so that its arguments and parents are unknown.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._processes: OrderedDict[tuple[int, int, str | None], Process] = OrderedDict()
        self._writers: OrderedDict[tuple[Any, ...], Writer] = OrderedDict()
        self.incomplete = False

    def read(self, event: Mapping[str, Any]) -> Facts | None:
        """The facts of an operation; None for what the guard itself says. ValueError, with the reason, for an operation
        that does not say enough."""
        if event.get("op") == "process" and "writer" not in event:
            self._describe(event)
            return None
        if "writer" not in event:
            return None
        op = event.get("op")
        if not isinstance(op, str):
            raise ValueError("no op")
        path, to = _path(event, "path"), _path(event, "to")
        if path is None:
            raise ValueError("no path")
        record = _record(event)
        fence = event.get("fence")
        return Facts(
            writer=self._writer(event["writer"]),
            operation=self._class(op, event, to),
            file=self._files.of(path, to),
            path=path,
            to=to,
            record=record,
            fence=_one_of(_FENCES, fence.get("relation") if isinstance(fence, dict) else None) or "none",
            continues=_one_of(_CHAINS, event.get("continues")),
            lock=_one_of(_LOCKS, event.get("lock")) or "free",
            claim=_text(event.get("claim")),
        )

    def _class(self, op: str, event: Mapping[str, Any], to: bytes | None) -> OperationClass:
        noted: OperationClass | None = _one_of(_CLASSES, event.get("class"))
        return noted or operation_class(
            op,
            append=event.get("append") is True,
            onto_transcript=to is not None and self._files.of(to) == "transcript",
        )

    def _describe(self, event: Mapping[str, Any]) -> None:
        tgid, start, exe = _number(event.get("tgid")), _number(event.get("start")), _text(event.get("exe"))
        args, parents = event.get("args"), event.get("parents")
        process = Process(
            tgid=tgid,
            start=start,
            exe=exe,
            args=tuple(map(str, args)) if isinstance(args, list) else (),
            parents=tuple(
                (_number(parent.get("pid")), str(parent.get("comm") or ""))
                for parent in (parents if isinstance(parents, list) else ())
                if isinstance(parent, dict)
            ),
            cgroup=_text(event.get("cgroup")),
            container=_text(event.get("container")),
            runtime=_text(event.get("runtime")),
            pidns=None,
            environ_lane=_text(event.get("claim")),
        )
        _keep(self._processes, (tgid, start, exe), process, PROCESSES)

    def _writer(self, found: object) -> Writer:
        if not isinstance(found, dict):
            raise ValueError("no writer")
        tgid, start, exe = _number(found.get("tgid")), found.get("start"), _text(found.get("exe"))
        process = None
        self.incomplete = False
        if isinstance(start, int):
            process = self._processes.get((tgid, start, exe))
            if process is None:
                process = Process(tgid, start, exe, (), (), None, None, None, None)
                _keep(self._processes, (tgid, start, exe), process, PROCESSES)
            self.incomplete = not process.args and not process.parents
        known: Known = _one_of(_KNOWN, found.get("known")) or "ok"
        tid, main, comm = _number(found.get("tid")), found.get("main") is True, _text(found.get("comm")) or ""
        uid, gid = (
            _number(found.get("uid"), _NOBODY),
            _number(found.get("gid"), _NOBODY),
        )  # hashed ones are texts
        key = (tid, tgid, main, comm, uid, gid, known, process)
        writer = self._writers.get(key)  # the same object for the same writer: decisions are remembered by it
        if writer is None:
            writer = Writer(tid, tgid, main, comm, uid, gid, known, process)
            _keep(self._writers, key, writer, WRITERS)
        return writer


def outcome_of(event: Mapping[str, Any]) -> Outcome:
    """What the log says of an operation."""
    verdict = event.get("would") or event.get("verdict")
    lane, rule = event.get("lane"), event.get("rule")
    return Outcome(*(value if isinstance(value, str) and value else "-" for value in (lane, rule, verdict)))


def _keep(table: OrderedDict[Any, Any], key: Any, value: Any, limit: int) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > limit:
        table.popitem(last=False)


def _path(event: Mapping[str, Any], key: str) -> bytes | None:
    exact, shown = event.get(f"{key}_b64"), event.get(key)
    if isinstance(exact, str):
        try:
            return base64.b64decode(exact, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{key}_b64 is not base64") from error
    return shown.encode("utf-8", "surrogatepass") if isinstance(shown, str) else None


def _record(event: Mapping[str, Any]) -> RecordMeta | None:
    records = event.get("records")
    found = event.get("record") or (records[0] if isinstance(records, list) and records else None)
    if not isinstance(found, dict):
        return None
    try:
        return msgspec.convert(found, RecordMeta)
    except msgspec.ValidationError:
        return RecordMeta(invalid=True)


def _one_of(values: frozenset[str], found: object) -> Any:
    return found if isinstance(found, str) and found in values else None


def _number(found: object, unknown: int = 0) -> int:
    return found if isinstance(found, int) and not isinstance(found, bool) else unknown


def _text(found: object) -> str | None:
    return found if isinstance(found, str) else None
