"""Records, branches and what a reader makes of a transcript, for the tests of rebasing."""

from __future__ import annotations

import json
from typing import Any

from guardfs.transcript.chain import History
from guardfs.transcript.formats import PI, Format
from guardfs.transcript.meta import RecordMeta
from guardfs.transcript.positions import positions
from guardfs.transcript.rebase import Rebased, rebase

HEADER = b'{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}\n'


def node(record_id: str, parent: str | None, **more: Any) -> bytes:
    record = {"type": "message", "id": record_id, "parentId": parent, **more, "message": {"role": "user"}}
    return json.dumps(record).encode() + b"\n"


def side(record_id: str, parent: str | None) -> bytes:
    return node(record_id, parent, appendMode="side")


def leaf(record_id: str, parent: str | None, target: str | None, **more: Any) -> bytes:
    record = {"type": "leaf", "id": record_id, "parentId": parent, "targetId": target, **more}
    return json.dumps(record).encode() + b"\n"


def claude(record_id: str, parent: str | None, **more: Any) -> bytes:
    return json.dumps({"parentUuid": parent, **more, "type": "user", "uuid": record_id}).encode() + b"\n"


def on(
    base: str | None,
    *lines: bytes,
    format: Format = PI,
    header: bool = True,
    newline: bool = True,
    **more: Any,
) -> Rebased:
    return rebase(b"".join(lines), format, leaf=base, header=header, newline=newline, **more)


def read(text: bytes, format: Format = PI) -> tuple[list[RecordMeta], History]:
    history = History(format)
    records = [each.record for each in positions([text], format)]
    for record in records:
        history.add(record)
    return records, history


def path(text: bytes, format: Format = PI) -> list[str | None]:
    """The ids from the start to the leaf."""
    records, history = read(text, format)
    return [records[each].id for each in history.path()][::-1]


def parents(data: bytes, format: Format = PI) -> dict[str | None, str | None]:
    return {each.id: each.parent for each in read(data, format)[0]}
