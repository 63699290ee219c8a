"""Who wrote what of one transcript, as its log tells. Pure.

A `Ledger` follows the transcript and what was renamed from and to its name (archives, ``.reset.<time>``), and keeps for
each byte the event that wrote it. The file is read by others; `Ledger.of` joins a record of it with its writer by place
and id: a file that was changed without a guard, or written anew with the same records, is not blamed on the wrong one.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from guardfs.audit.fences import stamp
from guardfs.audit.incidents import Gatherer, Incident, Who
from guardfs.audit.spans import Spans
from guardfs.transcript.meta import RecordMeta

_RECENT = 16_384
"""Writes for which it is remembered which event they were, until an incident names them."""

_TOLD = 100
"""Things that happened to a file as a whole that are kept: the first ones and the last."""

_ENDLESS = 1 << 62
"""Bytes: the end of a file of which the log does not tell the size."""

Known = Literal["log", "moved", "before", "unlogged"]
"""Of a record: the log has its write, at that place; elsewhere in the file; it is older than the log; it came without
the log's knowledge: while no guard was there, or below the mount."""


class Written(NamedTuple):
    """One change, as the log has it. micros: since the epoch. who: None where nobody was seen. verdict: what was done;
    would: what the rule would have done, "" if the same. relation: of the writer to the open fence, "" if there was
    none. killed: numbers of the incidents that it is to blame for."""

    seq: int
    micros: int
    op: str
    who: Who | None
    verdict: str
    would: str
    relation: str
    killed: tuple[int, ...] = ()

    @property
    def time(self) -> str:
        """As events have it."""
        return stamp(self.micros * 1000)


class Blame(NamedTuple):
    """What is known of one record. rewritten: who has written it anew since; ended: who wrote its end, if another
    writer did."""

    known: Known
    written: Written | None = None
    rewritten: Written | None = None
    ended: Written | None = None


class _Facts(NamedTuple):
    """What many events share. writer: its place; -1 for nobody. whole: it put another content in the file's place.
    told: every record that it wrote has an id that the log has."""

    op: str
    writer: int
    verdict: str
    would: str
    relation: str
    whole: bool
    told: bool


class _Content:
    """What a name leads to. begin: bytes that were there before the log knew of it. epoch: grows with each change that
    takes something away. history: what happened to it as a whole."""

    def __init__(self, begin: int, epoch: int) -> None:
        self.spans = Spans()
        self.begin = begin
        self.epoch = epoch
        self.history: list[tuple[int, str]] = []


class Ledger:
    """Takes the events of one log in order. Some 60 bytes a write, and 100 a record with an id.

    name: base name of the transcript. path: below the mount; None: not known, so that every path that ends in *name*
    is taken for it.
    """

    def __init__(self, name: str, path: str | None = None) -> None:
        self._path = path
        self._name = name
        stem, dot, _ = name.partition(".jsonl")
        self._stem = stem + dot
        self._known = Gatherer()
        self._contents: dict[str, _Content] = {}
        self._gone: dict[str, str] = {}
        self._epochs = 0
        self._seqs = array("q")
        self._times = array("q")
        self._kinds = array("l")
        self._epoch_of = array("l")
        self._facts: list[_Facts] = []
        self._fact_places: dict[_Facts, int] = {}
        self._writers: list[Who] = []
        self._writer_places: dict[tuple[str, int, int, int], int] = {}
        self._ids: dict[str, int] = {}
        self._recent: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._killed: dict[int, tuple[int, ...]] = {}

    # ---- the log

    def take(self, event: Mapping[str, Any]) -> None:
        """The next event."""
        told = self._known.take(event)
        if told is not None:
            if isinstance(told, Incident) and self._is_ours(told.path):
                self._incident(told)
            return
        path, to, op = event.get("path"), event.get("to"), event.get("op")
        if not isinstance(path, str) or not (
            self._is_ours(path) or (isinstance(to, str) and self._is_ours(to))
        ):
            return
        if op == "unseen":
            self._unseen(event, self._base(path))
        elif isinstance(event.get("writer"), dict) and not event.get("errno"):
            self._operation(event, str(op), self._base(path), self._base(to) if isinstance(to, str) else None)

    def _is_ours(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if not name.startswith(self._stem) or name.endswith(".lock"):
            return False
        return self._path is None or folder == self._path.rpartition("/")[0]

    def _base(self, path: str) -> str:
        return path.rpartition("/")[2] if self._is_ours(path) else path

    def _operation(self, event: Mapping[str, Any], op: str, path: str, to: str | None) -> None:
        if op in ("create", "mknod", "symlink"):
            self._put(path, self._new(0), self._entry(event, op), "created")
        elif op == "write":
            self._write(event, path)
        elif op == "truncate":
            size = _number(event.get("bytes"))
            content = self._contents.get(path) or self._found(path, size)
            if content.spans.end > size or content.begin > size:
                self._cut(content, size)
                self._note(content, self._entry(event, op), f"cut to {size:,} bytes")
        elif op == "unlink":
            self._contents.pop(path, None)
            self._gone[path] = "removed"
        elif op == "rename" and to is not None:
            self._rename(event, path, to)
        elif op == "link" and to is not None and path in self._contents:
            self._contents[to] = self._contents[path]

    def _write(self, event: Mapping[str, Any], path: str) -> None:
        offset, size = _number(event.get("offset"), -1), _number(event.get("bytes"))
        if offset < 0 or size <= 0:
            return
        content = self._contents.get(path) or self._found(path, offset)
        below = event.get("class") == "rewrite"
        if below or content.spans.end > offset:  # an append lands at the end: what was there has been cut
            self._next_epoch(content)
        if not below:
            content.spans.cut(offset)
        records = event.get("records")
        records = records if isinstance(records, list) else [event.get("record")]
        ids = [record.get("id") for record in records if isinstance(record, dict)]
        told = len(ids) == len(records) and all(isinstance(each, str) for each in ids)
        entry = self._entry(
            event, "rewrite" if below else "append", content, told and "records_more" not in event
        )
        content.spans.put(offset, offset + size, entry)
        for each in ids:
            if isinstance(each, str):
                self._ids.setdefault(each, entry)
        self._remember(event, entry)

    def _rename(self, event: Mapping[str, Any], path: str, to: str) -> None:
        entry = self._entry(event, "rename", whole=True)
        moved, replaced = self._contents.pop(path, None), self._contents.pop(to, None)
        if self._is_ours(to) and moved is None:
            moved = self._new(0)
            if not self._is_ours(path):  # written under a name that nobody followed
                self._retell(entry, moved)
                moved.spans.put(0, _ENDLESS, entry)
            else:
                moved.begin = _ENDLESS
        if moved is not None:
            self._put(to, moved, entry, f"renamed from {path}")
        if replaced is not None and event.get("flags") == "exchange":
            self._put(path, replaced, entry, f"renamed from {to}")
        elif self._is_ours(path):
            self._gone[path] = f"renamed to {to}"
        self._remember(event, entry)

    def _unseen(self, event: Mapping[str, Any], path: str) -> None:
        change = event.get("change")
        before, after = (_size(event.get(key)) for key in ("before", "after"))
        if change == "created":
            content = self._new(0)
            entry = self._entry(event, "unseen", content, False, True)
            content.spans.put(0, after or 0, entry)
            self._put(path, content, entry, "put there below the mount")
            self._remember(event, entry)
        elif change == "removed":
            self._contents.pop(path, None)
            self._gone[path] = "removed below the mount"
        elif before is not None and after is not None and before != after:
            content = self._contents.get(path) or self._found(path, before)
            if after < before:
                self._cut(content, after)
            entry = self._entry(event, "unseen", content, False)
            content.spans.put(before, after, entry)
            self._note(content, entry, f"{before:,} to {after:,} bytes below the mount")
            self._remember(event, entry)

    def _incident(self, incident: Incident) -> None:
        change = incident.culprit
        if change is not None:
            entry = self._recent.get((change.time, change.by.tid if change.by is not None else 0))
            if entry is not None:
                self._killed[entry] = (*self._killed.get(entry, ()), incident.seq)

    # ---- its parts

    def _new(self, begin: int) -> _Content:
        self._epochs += 1
        return _Content(begin, self._epochs)

    def _found(self, path: str, begin: int) -> _Content:
        """A file that was there when the log began."""
        content = self._contents[path] = self._new(begin)
        return content

    def _put(self, path: str, content: _Content, entry: int, what: str) -> None:
        self._contents[path] = content
        self._gone.pop(path, None)
        self._note(content, entry, what)

    def _note(self, content: _Content, entry: int, what: str) -> None:
        if len(content.history) >= _TOLD:
            del content.history[_TOLD // 2]
        content.history.append((entry, what))

    def _cut(self, content: _Content, size: int) -> None:
        content.spans.cut(size)
        content.begin = min(content.begin, size)
        self._next_epoch(content)

    def _next_epoch(self, content: _Content) -> None:
        self._epochs += 1
        content.epoch = self._epochs

    def _retell(self, entry: int, content: _Content) -> None:
        self._epoch_of[entry] = content.epoch

    def _entry(
        self,
        event: Mapping[str, Any],
        op: str,
        content: _Content | None = None,
        told: bool = True,
        whole: bool = False,
    ) -> int:
        fence = event.get("fence")
        facts = _Facts(
            op,
            self._writer(event),
            str(event.get("verdict") or ""),
            str(event.get("would") or ""),
            str(fence.get("relation") or "") if isinstance(fence, dict) else "",
            whole,
            told,
        )
        place = self._fact_places.get(facts)
        if place is None:
            place = self._fact_places[facts] = len(self._facts)
            self._facts.append(facts)
        self._seqs.append(_number(event.get("seq")))
        self._times.append(_microseconds(event.get("time")))
        self._kinds.append(place)
        self._epoch_of.append(0 if content is None else content.epoch)
        return len(self._seqs) - 1

    def _writer(self, event: Mapping[str, Any]) -> int:
        writer = event.get("writer")
        if not isinstance(writer, dict):
            return -1
        who = self._known.of_writer(event, writer)
        key = (who.lane, who.tid, who.tgid, who.start)
        place = self._writer_places.get(key)
        if place is None:
            place = self._writer_places[key] = len(self._writers)
            self._writers.append(who)
        return place

    def _remember(self, event: Mapping[str, Any], entry: int) -> None:
        writer, time = event.get("writer"), event.get("time")
        if isinstance(time, str):
            self._recent[time, _number(writer.get("tid")) if isinstance(writer, dict) else 0] = entry
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

    # ---- the file

    @property
    def content(self) -> _Content | None:
        return self._contents.get(self._name)

    @property
    def gone(self) -> str | None:
        """What became of the transcript's name, if the log says that it leads nowhere."""
        return self._gone.get(self._name)

    def history(self) -> list[tuple[Written, str]]:
        """What happened to the file as a whole, in order."""
        content = self.content
        return [] if content is None else [(self._written(entry), what) for entry, what in content.history]

    def of(self, record: RecordMeta, offset: int, length: int) -> Blame:
        """Who wrote *record*, which lies at [offset, offset + length) of the file now."""
        content = self.content
        first = None if record.id is None else self._ids.get(record.id)
        here = None if content is None else content.spans.at(offset)
        if content is None or here is None:
            if first is not None:
                return Blame("moved", self._written(first))
            return Blame("before" if content is not None and offset < content.begin else "unlogged")
        facts = self._facts[self._kinds[here]]
        if first is None:
            if record.id is not None and facts.told and not facts.whole:
                return Blame("unlogged")  # another record stood at this place when the log was written
            return Blame("log", self._written(here), ended=self._end(content, here, offset + length - 1))
        if facts.whole or (first != here and self._epoch_of[first] != self._epoch_of[here] and facts.told):
            return Blame("log", self._written(first), self._written(here))
        return Blame("log", self._written(here), ended=self._end(content, here, offset + length - 1))

    def _end(self, content: _Content, here: int, last: int) -> Written | None:
        """Who wrote the byte *last*, if not the writer of the change *here*."""
        there = content.spans.at(last)
        if there is None or there == here:
            return None
        writers = [self._facts[self._kinds[entry]].writer for entry in (here, there)]
        return None if writers[0] == writers[1] else self._written(there)

    def _written(self, entry: int) -> Written:
        facts = self._facts[self._kinds[entry]]
        return Written(
            self._seqs[entry],
            self._times[entry],
            facts.op,
            None if facts.writer < 0 else self._writers[facts.writer],
            facts.verdict,
            facts.would,
            facts.relation,
            self._killed.get(entry, ()),
        )


def _number(found: object, unknown: int = 0) -> int:
    return found if isinstance(found, int) and 0 <= found < _ENDLESS else unknown


def _size(found: object) -> int | None:
    return _number(found.get("size")) if isinstance(found, dict) else None


def _microseconds(time: object) -> int:
    try:
        return round(datetime.fromisoformat(str(time)).timestamp() * 1e6)
    except (ValueError, OverflowError):
        return 0
