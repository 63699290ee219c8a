"""The file system without a mount: its methods are called as pyfuse3 would call them, on a real directory."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from guardfs.audit.event import Kind, Notice, Operation
from guardfs.lanes.process import ProcessTable
from guardfs.mount.backing import Backing
from guardfs.mount.caller import Caller
from guardfs.mount.filesystem import FileSystem
from guardfs.mount.operations.parts import Later
from guardfs.policy.decide import Decider
from guardfs.policy.judge import Judge
from guardfs.policy.load import load
from guardfs.transcript.names import NameRules

ROOT = 1


class Recorder:
    """Stands where the audit log stands, and remembers what it is told."""

    def __init__(self) -> None:
        self.items: list[Operation | Notice] = []
        self.failing = False
        self.wanted = True

    def emit(self, item: Operation | Notice) -> None:
        self.items.append(item)

    def wants(self, op: str, kind: Kind) -> bool:
        return self.wanted

    def operations(self, op: str) -> list[Operation]:
        return [item for item in self.items if isinstance(item, Operation) and item.op == op]

    def notices_all(self) -> list[Notice]:
        return [item for item in self.items if isinstance(item, Notice)]

    def notices(self, op: str) -> list[Notice]:
        return [item for item in self.items if isinstance(item, Notice) and item.op == op]


class Direct(FileSystem):
    """A file system that is told who calls."""

    def __init__(
        self,
        directory: Path,
        *,
        below: Backing | None = None,
        descriptors: int = 64,
        audit_required: bool = False,
        decider: Decider | None = None,
        processes: ProcessTable | None = None,
    ) -> None:
        """decider: of another policy than `record`; processes: who the callers are, instead of what /proc says."""
        self.log = Recorder()
        decider = decider or Decider(load("record").policy, lambda kind, name: None)
        names = NameRules(decider.policy.transcripts)
        super().__init__(
            root_fd=os.open(directory, os.O_PATH | os.O_DIRECTORY),
            descriptors=descriptors,
            names=names,
            judge=Judge(decider, names),
            processes=processes or ProcessTable(),
            audit=self.log,  # type: ignore[arg-type]
            audit_required=audit_required,
            below=below,
        )
        self.directory = directory
        self.me = Caller(os.geteuid(), os.getegid(), os.getpid(), 0o022)

    def caller(self) -> Caller:
        return self.me

    # ---- shorter ways to say it

    def find(self, path: bytes) -> int:
        """The node id of *path*, looked up part by part; each look takes a reference. 0 if there is none."""
        node = ROOT
        for name in path.split(b"/"):
            reply = self.lookup(node, name, self.me)
            if reply.st_ino == 0:
                return 0
            entry = self.nodes.entry(self.node(node), name)
            assert entry is not None
            node = entry.id
        return node

    def make(self, name: bytes, content: bytes = b"", flags: int = os.O_RDWR, mode: int = 0o644) -> int:
        """Create a file in the root and write to it; the number of its handle."""
        info, _ = self.create(ROOT, name, mode, flags | os.O_CREAT, self.me)
        if content:
            assert finish(self.write(info.fh, 0, content)) == len(content)
        return int(info.fh)

    def change(self, node: int, flags: int = 0, handle: int | None = None, **values: int) -> Any:
        """setattr of the given fields, named as in struct stat without ``st_``."""
        fields = SimpleNamespace(
            **{
                f"update_{name}": name in values or f"{name}_ns" in values
                for name in ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
            }
        )
        defaults = dict.fromkeys(("mode", "uid", "gid", "size", "atime_ns", "mtime_ns"), 0)
        attr = SimpleNamespace(**{f"st_{name}": value for name, value in {**defaults, **values}.items()})
        self.request_flags = flags
        return self.setattr(node, attr, fields, handle, self.me)  # type: ignore[arg-type]

    def end(self) -> None:
        """Close everything."""
        for handle in list(self.handles):
            self.release(handle)
        for node in list(self.nodes):
            if node.id != ROOT:
                self.forget([(node.id, node.nlookup)])
        self.processes.close()
        self.fds.close()


def finish(answer: Any) -> Any:
    """The answer itself, also where the work was to be done in a thread."""
    if not isinstance(answer, Later):
        return answer
    try:
        result = answer.work()
    except OSError as error:
        if answer.failed is not None:
            answer.failed(error)
        raise
    return answer.then(result)
