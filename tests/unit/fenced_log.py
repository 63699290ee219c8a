"""A log as a mount under a policy writes it: the real judge, fence machine, notices and log, but no mount."""

from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

from guardfs.audit.event import Kind, Notice, Operation
from guardfs.audit.fences import notice_of
from guardfs.audit.text import json_bytes
from guardfs.fence.feed import Happening
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.lanes.writer import Process, Writer
from guardfs.policy.decide import Decider
from guardfs.policy.judge import Judge, Judgement
from guardfs.policy.load import load
from guardfs.policy.model import OperationClass
from guardfs.policy.users import ids
from guardfs.transcript.names import NameRules
from guardfs.transcript.records import Assembler
from tests.unit.audit_tools import CRON, make_log

NAME = "fb87a1b2-0000-4000-8000-000000000001.jsonl"
KEY = "agent:main:feishu:direct:ou_demo"
START = 1_779_507_467_000_000_000
"""Wall clock of the first operation, ns: 2026-05-23T03:37:47Z. Each takes a millisecond."""

_GATEWAY = Process(
    4102,
    50798,
    "/usr/local/bin/node",
    ("openclaw",),
    ((4000, "bash"), (1, "systemd")),
    None,
    None,
    None,
    None,
)
RUN = Writer(4102, 4102, True, "openclaw", 1000, 1000, "ok", _GATEWAY)
POOL = Writer(4121, 4102, False, "libuv-worker", 1000, 1000, "ok", _GATEWAY)
_TOUCH = Process(7002, 60002, "/usr/bin/touch", ("touch", "-c"), ((7001, "sync.sh"),), "/", None, None, None)
TOUCH = Writer(7002, 7002, True, "touch", 0, 0, "ok", _TOUCH)

__all__ = ["CRON", "KEY", "NAME", "POOL", "RUN", "START", "TOUCH", "FencedLog", "record"]


def record(
    record_id: str, parent: str | None, role: str = "user", text: str = "the text of a message", **more: str
) -> bytes:
    """One line of a transcript."""
    message = {"role": role, "content": [{"type": "text", "text": text}], **more}
    return json_bytes({"type": "message", "id": record_id, "parentId": parent, "message": message}) + b"\n"


class _Registry:
    generation = 0

    def key_of(self, name: bytes) -> str | None:
        return KEY if name.startswith(NAME[:-6].encode()) else None


class FencedLog:
    """Does to files in *directory* what is asked, and logs it. Fingerprints are made up: an inode a file, times that
    count its changes. Use as a context manager; afterwards `path` is the log, complete."""

    def __init__(self, directory: Path, policy: str = "openclaw", **options: Any) -> None:
        loaded = load(policy)
        names = NameRules(loaded.policy.transcripts)
        self._kind = names.kind
        self._judge = Judge(Decider(loaded.policy, ids), names)
        self._log = make_log(directory, sessions=_Registry(), **options)
        self.directory = directory
        self.path = self._log.path
        self._states: dict[str, Fingerprint] = {}
        self._assembler = Assembler()
        self._inodes = itertools.count(100)
        self._ids = itertools.count(1)
        self._mono = 0
        self.leaf: str | None = None
        """Of the turn: the last record that `turn` or `answer` wrote."""

    def __enter__(self) -> FencedLog:
        self._log.start()
        self._log.emit(
            Notice("start", START, {"mountpoint": str(self.directory), "policy": {"source": "openclaw"}})
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    # ---- single operations

    def adopt(self, name: str = NAME) -> None:
        """A file that has been there before the guard."""
        size = (self.directory / name).stat().st_size
        self._states[name] = Fingerprint(1, next(self._inodes), size, 1, 1)

    def wait(self, ms: int) -> None:
        """Nothing happens for a while."""
        self._mono += ms * 1_000_000

    def append(self, writer: Writer, data: bytes, name: str = NAME) -> None:
        before = self._states.get(name, ABSENT)
        if before == ABSENT:
            self._change("create", name, writer, Fingerprint(1, next(self._inodes), 0, 0, 0))
            before = self._states[name]
        with (self.directory / name).open("ab") as file:
            file.write(data)
        after = before._replace(size=before.size + len(data))
        self._change("write", name, writer, after, offset=before.size, size=len(data), append=True, data=data)

    def truncate(self, writer: Writer, size: int, name: str = NAME) -> None:
        with (self.directory / name).open("r+b") as file:
            file.truncate(size)
        self._change("truncate", name, writer, self._states[name]._replace(size=size), size=size)

    def touch(self, writer: Writer, name: str = NAME) -> None:
        self._change("attributes", name, writer, self._states[name], detail={"change": {"mtime_ns": 1}})

    def rename(self, writer: Writer, to: str, name: str = NAME) -> None:
        (self.directory / name).rename(self.directory / to)
        before, replaced = self._states.pop(name), self._states.get(to)
        self._states[to] = before
        self._do("rename", name, writer, to=to.encode(), before=before, replaced=replaced, after=before)

    def below(self, data: bytes, name: str = NAME) -> None:
        """Somebody appends below the mount."""
        before = self._states[name]
        with (self.directory / name).open("ab") as file:
            file.write(data)
        after = self._states[name] = self._stamped(before._replace(size=before.size + len(data)))
        self._mono += 1_000_000
        fields: dict[str, Any] = {"path": name, "kind": "transcript", "change": "modified", "lane": "unseen"}
        fields |= {"before": {"size": before.size}, "after": {"size": after.size}}
        self._log.emit(Notice("unseen", START + self._mono, fields))
        self._tell(self._judge.unseen(name.encode(), before, after, self._mono, START + self._mono))

    def look(self, writer: Writer, name: str = NAME) -> None:
        state = self._states.get(name)
        self._do("look", name, writer, 0 if state else errno.ENOENT, after=state)

    def opened(self, writer: Writer, name: str = NAME) -> None:
        self.look(writer, name)
        if name in self._states:
            self._do("open", name, writer, after=self._states[name])

    # ---- the agent's protocol (openclaw-protocol, section 3)

    def cycle(self, shape: str, holder: Writer = POOL) -> None:
        """One lock cycle. R: the holder reads; L: it looks; w: the main thread appends a record of the turn's own."""
        self._lock("create", holder)
        for letter in shape:
            if letter == "R":
                self.opened(holder)
            elif letter == "L":
                self.look(holder)
            else:
                self.answer()
        self._lock("unlink", holder)

    def turn(self) -> None:
        """A turn begins: the user's record, and a fence."""
        self.cycle("RLwL")

    def answer(self, role: str = "user") -> None:
        """The main thread appends a record that goes on from the last one of the turn."""
        parent, self.leaf = self.leaf, f"{next(self._ids):08x}"
        self.append(RUN, record(self.leaf, parent, role))

    def check(self, survives: bool = False) -> None:
        """The owner looks, and then goes on (a second look) or gives up."""
        self.cycle("LL" if survives else "L")

    # ---- parts

    def _lock(self, op: str, holder: Writer) -> None:
        self._do(op, f"{NAME}.lock", holder)

    def _stamped(self, state: Fingerprint) -> Fingerprint:
        return state._replace(mtime_ns=state.mtime_ns + 1, ctime_ns=state.ctime_ns + 1)

    def _change(self, op: str, name: str, writer: Writer, after: Fingerprint, **more: Any) -> None:
        before = self._states.get(name)
        self._states[name] = self._stamped(after)
        self._do(op, name, writer, before=before, after=self._states[name], **more)

    def _do(
        self,
        op: str,
        name: str,
        writer: Writer,
        number: int = 0,
        *,
        to: bytes | None = None,
        before: Fingerprint | None = None,
        after: Fingerprint | None = None,
        replaced: Fingerprint | None = None,
        data: bytes | None = None,
        **more: Any,
    ) -> None:
        """As `guardfs.mount.operations.core` settles an operation."""
        self._mono += 1_000_000
        wall, path = START + self._mono, name.encode()
        kind = max(self._kind(path), self._kind(to)) if to is not None else self._kind(path)
        records = [] if data is None else self._assembler.feed((path, writer.tgid), more["offset"], data)
        operation: OperationClass | None = "append" if op == "write" else None
        if kind is Kind.OTHER:
            judged = Judgement(self._judge.other(writer, op, path, to, operation))
        else:
            judged = self._judge.judge(
                writer,
                Happening(
                    op,
                    kind,
                    path,
                    self._mono,
                    wall,
                    number,
                    to,
                    before,
                    after,
                    replaced,
                    tuple(records),
                    operation,
                ),
            )
        decision, fence, lock, claim, effects = judged
        self._log.emit(
            Operation(
                op=op, time_ns=wall, us=30, path=path, kind=kind, writer=writer, decision=decision, errno=number,
                to=to, records=records or None, operation=operation, fence=fence, lock=lock, claim=claim, **more,
            )
        )  # fmt: skip
        self._tell(effects)

    def _tell(self, effects: Any) -> None:
        for effect in effects:
            notice = notice_of(effect)
            if notice is not None:
                self._log.emit(notice)

    def events(self) -> list[dict[str, Any]]:
        """What the log holds; after its end."""
        return [json.loads(line) for line in Path(self.path).read_bytes().splitlines()]
