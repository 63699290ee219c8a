"""Whose transcript is whose: the agent's registry of sessions, as far as it names files. Pure.

OpenClaw's `sessions.json` is one object: session key -> entry, where an entry holds ``sessionId``, sometimes
``sessionFile`` (a path), ``updatedAt`` (milliseconds) and much else; 73 kB for a single session were seen, most of it
a snapshot that nobody needs here. Names of files (OpenClaw 2026.5.20, config/sessions/paths and artifacts):

    <id>.jsonl, <id>-topic-<n>.jsonl, <ISO time>_<id>.jsonl       transcripts
    <transcript>.lock, <transcript>.reset.<time>, .deleted., .bak.     what is named after one
    <id>.trajectory.jsonl, <id>.trajectory-path.json, <id>.checkpoint.<id>.jsonl
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

MAX_SESSIONS = 100_000
"""Entries that are taken; more are left out."""

MAX_KEY = 512
"""Characters of a session key: it stands in every event. A longer one is left out."""

PIECE = 64 << 10
"""Bytes that are parsed in one go: some 50 us, in which no other thread of the interpreter runs."""

MAX_WHOLE = 8 << 20
"""Bytes of a registry that must be parsed in one go, because it is not written line by line: some 6 ms."""

_JSONL = b".jsonl"
_SPACE = b" \t\r\n"
_ENTRY = b'\n  "'


class _Entry(msgspec.Struct, gc=False):
    sessionId: str | None = None  # noqa: N815 - the key in the file
    sessionFile: str | None = None  # noqa: N815
    updatedAt: int | float | None = None  # noqa: N815


_decode_typed = msgspec.json.Decoder(dict[str, _Entry]).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode


def read_registry(data: bytes, pause: Callable[[], None] | None = None) -> dict[bytes, str] | None:
    """Names of transcripts (without directories) -> session key; None for what is no whole JSON object.

    Never raises. An entry that is broken, or names no file, is left out. Where two keys name one file, the entry with
    the later ``updatedAt`` has it, and of equal ones the key that sorts last. *pause* is called after each piece.
    """
    names: dict[bytes, str] = {}
    times: dict[bytes, int | float] = {}
    count = 0
    try:
        for entries in _pieces(data):
            for key, entry in entries.items():
                count += 1
                if count > MAX_SESSIONS:
                    return names
                if not key or len(key) > MAX_KEY:
                    continue
                time = entry.updatedAt or 0
                for name in _files(entry):
                    if name not in names or (times[name], names[name]) < (time, key):
                        names[name], times[name] = key, time
            if pause is not None:
                pause()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return names


def _pieces(data: bytes) -> Iterator[dict[str, _Entry]]:
    """The entries, some at a time.

    JSON holds no line break within a string. So, where each piece between two lines that begin with two spaces and a
    quote is a list of members, the whole is an object of just these members.
    """
    if len(data) <= PIECE:
        yield _entries(data)
        return
    start = data.find(b"{", 0, PIECE)
    tail = data[-PIECE:].rstrip(_SPACE)
    end = len(data) - PIECE + len(tail) - 1
    if data[:start].strip(_SPACE) or not (data.startswith(b"{" + _ENTRY, start) and tail.endswith(b"\n}")):
        if len(data) > MAX_WHOLE:
            raise msgspec.DecodeError("too large to be parsed in one go")
        yield _entries(data)
        return
    at = start + 1
    while at < end:
        to = data.find(_ENTRY, at + PIECE, end)
        to = end if to < 0 else to
        members = data[at:to].rstrip(_SPACE)
        if to < end:
            if not members.endswith(b","):
                raise msgspec.DecodeError("no comma between two entries")
            members = members[:-1]
        yield _entries(b"{%b}" % members)
        at = to


def _entries(data: bytes) -> dict[str, _Entry]:
    try:
        return _decode_typed(data)
    except msgspec.ValidationError:  # a single entry, as a rule
        pass
    entries = {}
    for key, raw in _decode_raw(data).items():
        entry = _lenient(raw)
        if entry is not None:
            entries[key] = entry
    return entries


def _lenient(raw: msgspec.Raw) -> _Entry | None:
    """What an entry says whose values are not all of the types they should be."""
    try:
        found = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    name, file, time = found.get("sessionId"), found.get("sessionFile"), found.get("updatedAt")
    return _Entry(
        name if isinstance(name, str) else None,
        file if isinstance(file, str) else None,
        time if isinstance(time, int | float) else None,
    )


def _files(entry: _Entry) -> Iterator[bytes]:
    if entry.sessionFile is not None:
        name = entry.sessionFile.strip().encode("utf-8", "replace")
        name = name[name.rfind(b"/") + 1 :]
        if name not in (b"", b".", b".."):
            yield name
    if entry.sessionId:
        name = entry.sessionId.encode("utf-8", "replace")
        if b"/" not in name:
            yield name + _JSONL


def find_key(name: bytes, *tables: Mapping[bytes, str]) -> str | None:
    """The session that the file *name* belongs to, by the first of *tables* that knows; exact names come first.

    Also for what is named after a transcript: its lock, its archives, its topics.
    """
    for candidate in _candidates(name):
        for table in tables:
            key = table.get(candidate)
            if key is not None:
                return key
    return None


def _candidates(name: bytes) -> Iterator[bytes]:
    yield name
    end = name.find(_JSONL)
    if end < 0:
        if not name.endswith(b".trajectory-path.json"):
            return
        stem = name[: -len(b".trajectory-path.json")]
    else:
        stem = name[:end]
    yield stem + _JSONL
    for mark in (b".checkpoint.", b".trajectory"):
        cut = stem.rfind(mark)
        if cut > 0:
            stem = stem[:cut]
            yield stem + _JSONL
    cut = stem.rfind(b"-topic-")
    if cut > 0:
        stem = stem[:cut]
        yield stem + _JSONL
    cut = stem.rfind(b"_")
    if cut >= 0:
        yield stem[cut + 1 :] + _JSONL
