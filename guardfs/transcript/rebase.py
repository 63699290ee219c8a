"""What another lane wrote meanwhile, made to continue the history that has been committed. Pure.

A branch's records name the leaf that their writer knew. Appended as they are, they would fork the history, and the
agent forgets one side of a fork. So the first ones get the current leaf as their parent, by changing that one value
in their text; all others continue these, and every other byte stays as written.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

import msgspec

from guardfs.transcript.chain import History
from guardfs.transcript.formats import Format, Place
from guardfs.transcript.meta import INVALID, MAX_RECORD, PEEK, RecordMeta
from guardfs.transcript.reading import refused_for_text
from guardfs.transcript.splice import put, span, whole

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Reads a record of 100 MB within some tenths of a second: it builds nothing of what is in the members."""


class Rebased(NamedTuple):
    """A branch as it must be appended.

    data: to be appended at the end of the committed file; begins with a newline where that does not end in one. leaf:
    the id that the next record will continue once *data* is appended; a record counted as unparsed is never it.
    records: whole records in *data*. moved: those of them whose parent was changed (of a ``leaf`` record: or its
    target). dropped: headers, and records known already, that were left out. unparsed: lines that are appended as
    they are because they are no record, or because they are too long to find the parent that should be changed.
    clean: *data* is the branch, byte for byte.
    """

    data: bytes
    leaf: str | None
    records: int
    moved: int
    dropped: int
    unparsed: int
    clean: bool


def rebase(
    branch: bytes,
    format: Format,
    *,
    leaf: str | None,
    header: bool,
    newline: bool,
    known: Container[str] = frozenset(),
    onto: str | None = None,
) -> Rebased:
    """The bytes *branch*, which a lane wrote after its base, for a committed file that has gone on since.

    leaf: the id of the committed file's leaf; None: it has none, and nothing is to be moved to. header: it
    has a session header already. newline: it ends in a newline, or is empty. known: ids that it holds already: such
    records are left out, and must be, since a second record of an id can make the parents a circle. onto: the parent
    that continues its leaf, where that is not the leaf itself (`RecordMeta`); without it such a record is moved.

    Never raises, whatever the bytes; costs the same for each record however many there are.
    """

    def held(name: str | None, line: bytes) -> bool:
        return name is not None and name in known

    walk = _Walk(format, leaf, onto, header, held)
    return _append(walk, branch, newline)


def merge(replacement: bytes, since: bytes, format: Format) -> Rebased:
    """What must be appended to *replacement*, a whole new file, of the bytes *since*, committed after its base.

    Records that the replacement holds already are left out: those of an id that it holds or, where records name no
    parent and an id may come again, those that stand there byte for byte.
    """
    history = History(format)
    header = False
    ids: set[str] = set()
    lines: set[bytes] = set()
    exact: dict[str, str] = {}  # cut id -> id
    for line in replacement.split(b"\n"):
        if not line or line.isspace():
            continue
        record = _read(format, line)
        history.add(record)
        if format.place(record) is Place.HEADER:
            header = True
        elif record.id is not None:
            if not format.parents:
                lines.add(line)
            name = whole(record.id, line, format.id_keys) or record.id
            if name != record.id:
                exact[record.id] = name
            ids.add(name)
    leaf = None if history.leaf is None else exact.get(history.leaf, history.leaf)

    def held(name: str | None, line: bytes) -> bool:
        return name is not None and (name in ids if format.parents else line in lines)

    walk = _Walk(format, leaf, history.onto if format.cursor else None, header, held, ids)
    return _append(walk, since, newline=not replacement or replacement.endswith(b"\n"))


def _append(walk: _Walk, branch: bytes, newline: bool) -> Rebased:
    lines = branch.split(b"\n")
    rest = lines.pop()  # without a newline
    kept = []
    for line in lines:
        if (taken := walk.take(line)) is not None:
            kept.append(taken)
            kept.append(b"\n")
    if rest and (taken := walk.take(rest)) is not None:
        kept.append(taken)
    data = b"".join(kept)
    if data and not newline and not data.startswith(b"\n"):
        data = b"\n" + data
    return Rebased(data, walk.shown, walk.records, walk.moved, walk.dropped, walk.unparsed, data == branch)


def _read(format: Format, line: bytes) -> RecordMeta:
    """The meta data of *line*; of one that is too long to be collected that of its short members."""
    if len(line) <= MAX_RECORD:
        return format.parse(line)
    try:
        found = _members(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # A torn line must not become the parent of others. One with a broken text is read by agents all the same.
        if not (line[-PEEK:].rstrip().endswith(b"}") and refused_for_text(line)):
            return INVALID
        record = format.peek(line[:PEEK])
        return INVALID if record.id is None and format.parents else record
    short = b",".join(
        b"%b:%b" % (msgspec.json.encode(key), value)
        for key, value in found.items()
        if memoryview(value).nbytes <= PEEK
    )
    return msgspec.structs.replace(format.parse(b"{%b}" % short), oversize=True)


class _Own(NamedTuple):
    """A record of the branch. rank: grows from record to record; that of the first one, where an id comes again. As a
    parent always has a smaller one, the parents make no circle. parent: that it has now."""

    rank: int
    parent: str | None


class _Walk:
    """The branch from its first line to its last, and what the file's leaf is by then."""

    def __init__(
        self,
        format: Format,
        leaf: str | None,
        onto: str | None,
        header: bool,
        held: Callable[[str | None, bytes], bool],
        ids: Container[str] | None = None,
    ) -> None:
        self._format = format
        self._header = header
        self._held = held
        self._base = leaf
        self._ids = ids  # of all committed records, if they are known
        self._leaf = leaf  # what a first record gets as its parent: from it the committed leaf is reached
        self._onto = (onto or leaf) if format.cursor else None
        self._own: dict[str, _Own] = {}  # the branch's records from which the committed leaf is reached
        self._count = 0
        self._stale = False  # whether a writer did not know the committed leaf
        self.shown = leaf  # what a reader of the file takes for the leaf
        self.records = self.moved = self.dropped = self.unparsed = 0

    def take(self, line: bytes) -> bytes | None:
        """*line* as it must be appended; None: not at all."""
        if not line or line.isspace():
            return line
        format = self._format
        record = _read(format, line)
        if record.invalid:
            self.unparsed += 1
            return line
        place = format.place(record)
        if place is Place.HEADER:
            if self._header:
                self.dropped += 1
                return None
            self._header = True
            self.records += 1
            return line
        name = whole(record.id, line, format.id_keys)
        if self._held(name, line):
            self.dropped += 1
            return None
        self.records += 1
        if not format.parents:
            if place is Place.NODE:
                self.shown = name
            elif place is Place.REWIND:
                self.shown = None  # only the whole file tells
            return line
        if name is None or place not in (Place.NODE, Place.SIDE, Place.LEAF):
            return line
        return self._step(line, record, place, name)

    def _step(self, line: bytes, record: RecordMeta, place: Place, name: str) -> bytes:
        """Takes a record that has its place in the tree."""
        format = self._format
        parent = whole(record.parent, line, format.parent_keys)
        before = self._own.get(name)
        above = None if parent is None else self._own.get(parent)
        self._count += 1
        rank = self._count if before is None else before.rank
        moved = False
        if not (above is not None and above.rank < rank) and not (above is None and self._continues(parent)):
            to = self._leaf if before is None else before.parent
            if to is not None and to not in (name, parent):
                at = span(line[:PEEK] if record.oversize else line, format.parent_keys)
                if place is Place.SIDE and not format.cursor:
                    if parent is None or parent != self._base:
                        return line  # a side chain of its own
                elif at is not None:
                    self._stale |= above is None and self._base is not None and parent != self._base
                    line, parent, moved = put(line, at, to), to, True
                elif record.oversize:
                    self.records -= 1
                    self.unparsed += 1
                    return line
        self._own[name] = _Own(rank, parent)
        if place is Place.LEAF:
            line, moved = self._move(line, record, moved)
        elif place is Place.NODE:
            self._leaf = self.shown = self._onto = name
        else:
            self._onto = name
        self.moved += moved
        return line

    def _continues(self, parent: str | None) -> bool:
        """Whether a record with *parent*, which is none of the branch's, is where it belongs already."""
        if parent is not None and parent == self._leaf:
            return True
        return self._format.cursor and not self._stale and parent == self._onto

    def _move(self, line: bytes, record: RecordMeta, moved: bool) -> tuple[bytes, bool]:
        """Takes a record that moves the leaf: within the branch, or to a record that has been committed.

        The latter would take all off the path that was committed since its writer looked. So it gets the current leaf
        as its target, like a first record as its parent. It stays as it is where its writer knew that leaf.
        """
        keys = self._format.target_keys
        target = whole(record.target, line, keys) or None
        if record.onto and not self._exists(record.onto):
            return line, moved  # readers ignore it
        if target is not None and target in self._own:
            self._leaf = self.shown = target
        else:
            gone = target is not None and not self._exists(target)
            if gone and self._base is None:
                return line, moved
            if (gone or self._stale) and target != self._base:
                at = span(line, keys)
                if at is not None:
                    line, target, moved = put(line, at, self._base), self._base, True
            self._leaf = self._base
            self.shown = target
        self._onto = target if record.onto is None else record.onto or None
        return line, moved

    def _exists(self, name: str) -> bool:
        """Whether a record of that id is in the file, as far as that is known."""
        return self._ids is None or name in self._ids or name in self._own
