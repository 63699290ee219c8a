"""One transcript, a journal, and a process that ends at any step between them: the guard's life without a mount.

A scenario is a list of operations, each a word and perhaps the number of a branch. `live` plays it in a child that
ends at a given step, as if killed; what it said to be done before that is the model.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from guardfs.mount.backing import Backing
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import Recovered, recover, stamp
from guardfs.state.branches import BranchFacts, BranchFile, BranchStore, GhostFacts
from guardfs.transcript.formats import PI, Format

NAME = b"s.jsonl"
HEADER = b'{"type":"session","id":"s"}\n'
KILLED = 9
BIG = 1_300_000
"""Bytes of a record that is appended in more than one piece."""

Op = tuple[str, int]


def record(name: str, parent: str | None, pad: int = 0) -> bytes:
    """One record of a conversation, a line."""
    found: dict[str, Any] = {"type": "message", "id": name, "parentId": parent, "message": {"role": "user"}}
    if pad:
        found["pad"] = "x" * pad
    return json.dumps(found).encode() + b"\n"


def ids(data: bytes) -> list[str]:
    """Of all records but headers; ValueError for a line that is none."""
    return [each["id"] for each in _records(data)]


def _records(data: bytes) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in data.splitlines() if line]
    return [each for each in found if each["type"] != "session"]


def path_from_leaf(data: bytes) -> list[str]:
    """Ids from the first record to the last, along the parents of the last."""
    found = {each["id"]: each for each in _records(data)}
    way: list[str] = []
    at = list(found)[-1] if found else None
    while at is not None and at in found and at not in way:
        way.append(at)
        at = found[at].get("parentId")
    return way[::-1]


class Model(NamedTuple):
    """What a life has said. there: records that must be in a file; maybe: those that may be; gone: those that a
    replacement has left out."""

    there: set[str]
    maybe: set[str]
    gone: set[str]


def say(said: Path, word: str, adds: Sequence[str], removes: Sequence[str]) -> None:
    """Note that something is about to be done (``trying``) or has been (``done``) to records; or that what becomes of
    those is of no importance (``loose``)."""
    fd = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, json.dumps([word, adds, removes]).encode() + b"\n")
    os.close(fd)


def model(said: Path, first: bytes | None) -> Model:
    """What must be in the files that began as *first* and *said*."""
    there, trying, loose, gone = set(ids(first or b"")), set[str](), set[str](), set[str]()
    for line in said.read_text().splitlines() if said.exists() else []:
        word, adds, removes = json.loads(line)
        there -= set(removes)
        if word == "trying":
            trying |= {*adds, *removes}
        elif word == "done":
            trying -= {*adds, *removes}
            there |= set(adds)
            gone |= set(removes)
        elif word == "loose":
            there -= set(adds)
            loose |= set(adds)
    return Model(there, trying | loose, gone)


def check(files: dict[str, bytes], model: Model, transcript: str) -> None:
    """Every record that must be there is, once, on the path from its file's leaf; nothing else is. Files beside the
    transcript may hold copies of what is in it."""
    assert not [name for name in files if name.endswith(".tmp")], sorted(files)
    kept = [data for name, data in files.items() if ".conflict." in name]
    assert len(kept) == len(set(kept)), "kept twice"
    counted = Counter(ids(files.get(transcript, b"")))
    for name, data in files.items():
        if name != transcript:
            counted.update(set(ids(data)) - set(counted))
    may = model.there | model.maybe | (model.gone if kept else set())
    assert set(counted) >= model.there, (model.there - set(counted), _short(files))
    assert set(counted) <= may, (set(counted) - may, _short(files))
    assert max(counted.values(), default=1) == 1, (counted, _short(files))
    for name, data in files.items():
        assert path_from_leaf(data) == ids(data), (name, data[-400:])


def _short(files: dict[str, bytes]) -> dict[str, list[bytes]]:
    """For people: the beginnings of all lines."""
    return {name: [line[:90] for line in data.splitlines()] for name, data in files.items()}


class Lab:
    """The files of a scenario. format: of the transcript."""

    def __init__(self, root: Path, format: Format = PI) -> None:
        self.root = root
        self.format = format
        self.sessions = root / "sessions"
        self.state = root / "state"
        self.said = root / "said"
        self.sessions.mkdir(parents=True)
        self.state.mkdir()

    @property
    def transcript(self) -> Path:
        return self.sessions / os.fsdecode(NAME)

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Contents and modification times, by name."""
        return {
            path.name: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(self.sessions.iterdir())
        }

    def journal(self) -> list[str]:
        """Names of what is in the journal."""
        return sorted(path.name for path in self.state.glob("branches/*"))

    def play(self, ops: Sequence[Op], *, first: bytes | None, last: int | None = None) -> int | None:
        """Live, from the content *first* on (None: no file); ended at step *last*, or at the end. How many steps there
        were; None if it was ended."""
        if first is not None:
            self.transcript.write_bytes(first)
        return in_child(lambda: Life(self, last).play(ops))

    def recover(self, last: int | None = None) -> list[Recovered]:
        """As a guard does at its start."""
        life = Life(self, last)
        try:
            return recover(life.store, life.merger, life.dir_fd, Backing())
        finally:
            life.store.close()
            os.close(life.dir_fd)

    def recover_until(self, last: int) -> int | None:
        """The same, in a child that ends at step *last*."""

        def work() -> int:
            life = Life(self, last)
            recover(life.store, life.merger, life.dir_fd, Backing())
            return life.steps

        return in_child(work)

    def model(self, first: bytes | None) -> Model:
        """What must be in the files, by all that the life has said."""
        return model(self.said, first)

    def check(self, model: Model) -> None:
        """The files are as they must be, and the journal holds nothing any more."""
        assert self.journal() == []
        check({name: data for name, (data, _) in self.files().items()}, model, os.fsdecode(NAME))

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.root)


class Life:
    """One life of a guard. It ends at step *last*, as if killed."""

    def __init__(self, lab: Lab, last: int | None) -> None:
        self.lab = lab
        self.steps = 0
        self.last = last
        self.store = BranchStore(str(lab.state))
        self.store.step = self._step
        self.merger = Merger(self.store, Backing(), lab.format)
        self.dir_fd = os.open(lab.sessions, os.O_PATH | os.O_DIRECTORY)
        self.branches: dict[int, BranchFile] = {}
        self.views: dict[int, bytes] = {}
        self._next = 0
        self.ghost: tuple[int, GhostFacts] | None = None

    def _step(self, name: str) -> None:
        self.steps += 1
        if self.last is not None and self.steps > self.last:
            os._exit(KILLED)

    def _say(self, word: str, adds: Sequence[str], removes: Sequence[str]) -> None:
        say(self.lab.said, word, adds, removes)

    def _doing(
        self, act: Callable[[], object], adds: Sequence[str] = (), removes: Sequence[str] = ()
    ) -> None:
        self._say("trying", adds, removes)
        act()
        self._say("done", adds, removes)

    def play(self, ops: Sequence[Op]) -> int:
        self.store.load()
        for word, number in ops:
            getattr(self, word)(number)
        return self.steps

    def _new(self) -> str:
        self._next += 1
        return f"{self._next:08x}"

    def _committed(self) -> bytes:
        return self.lab.transcript.read_bytes() if self.lab.transcript.exists() else b""

    # ---- operations; those that make no sense at the moment do nothing

    def open(self, number: int) -> None:
        """A branch on the transcript as it is."""
        if number in self.branches:
            return
        exists = self.lab.transcript.exists()
        st = self.lab.transcript.stat() if exists else None
        self.views[number] = self._committed()
        self.branches[number] = self.store.create(
            lambda new: BranchFacts(
                number=new,
                transcript=NAME,
                lane=f"lane:{number}",
                base=st.st_size if st else 0,
                exists=exists,
                whole=not exists,
                inode=st.st_ino if st else 0,
                device=st.st_dev if st else 0,
                opened=time.time_ns(),
            )
        )

    def append(self, number: int, pad: int = 0) -> None:
        """A record on a branch, behind what its lane sees."""
        if number not in self.branches:
            return
        file, view, name = self.branches[number], self.views[number], self._new()
        known = ids(view)
        data = (_before(view) if view else HEADER) + record(name, known[-1] if known else None, pad)
        self._doing(lambda: file.write(data, file.size), [name])
        self.views[number] = view + data

    def big(self, number: int) -> None:
        """A long one."""
        self.append(number, BIG)

    def rewrite(self, number: int) -> None:
        """The branch holds another file now, with one record of the old one and one of its own."""
        if number not in self.branches:
            return
        old, view, name = self.branches[number], self.views[number], self._new()
        known = ids(view)
        kept = known[:1]
        whole = (
            HEADER + b"".join(record(each, None) for each in kept) + record(name, kept[0] if kept else None)
        )

        def act() -> None:
            self.branches[number] = self.store.create(
                lambda new: msgspec.structs.replace(old.facts, number=new, whole=True, replaces=True),
                [whole],
                follows=old.number,
            )

        self._doing(act, [name], known[1:])
        self.views[number] = whole

    def own(self, number: int) -> None:
        """The owner writes to the file itself; which has another name while there is a ghost."""
        path = (
            self.lab.transcript if self.ghost is None else self.lab.sessions / os.fsdecode(self.ghost[1].name)
        )
        if self.ghost is None and not path.exists():
            return
        before = path.read_bytes()
        known, name = ids(before), self._new()
        data = _before(before) + record(name, known[-1] if known else None)
        with path.open("ab", buffering=0) as file:
            self._doing(lambda: file.write(data), [name])

    def merge(self, number: int) -> None:
        """The branch is rebased."""
        if number not in self.branches or self.ghost is not None:
            return
        self.merger.merge(self.branches.pop(number), self.dir_fd, NAME, stamp(self._next))
        del self.views[number]

    def vanish(self, number: int) -> None:
        """The transcript is removed below the mount."""
        if self.lab.transcript.exists():
            self._doing(self.lab.transcript.unlink, [], ids(self._committed()))

    def swap(self, number: int) -> None:
        """Another file takes its name below the mount, with what it held."""
        if self.lab.transcript.exists():
            other = self.lab.sessions / "other"
            other.write_bytes(self._committed())
            other.rename(self.lab.transcript)

    def away(self, number: int, *, removed: bool = False) -> None:
        """The name is taken away under the owner."""
        if self.ghost is not None or not self.lab.transcript.exists():
            return
        st = self.lab.transcript.stat()
        name = b"%b.conflict.rm" % NAME if removed else b"archive.jsonl"
        ghost = GhostFacts(
            transcript=NAME, name=name, inode=st.st_ino, device=st.st_dev, size=st.st_size, removed=removed
        )
        self.ghost = (self.store.haunt(ghost), ghost)
        if removed:
            self._say("loose", ids(self._committed()), [])
        os.rename(NAME, name, src_dir_fd=self.dir_fd, dst_dir_fd=self.dir_fd)

    def remove(self, number: int) -> None:
        """The same by unlink(2)."""
        self.away(number, removed=True)

    def anew(self, number: int) -> None:
        """Another file is made under the name, with a record of its own."""
        if self.ghost is None or self.lab.transcript.exists():
            return
        number, ghost = self.ghost
        self.ghost = (number, msgspec.structs.replace(ghost, anew=True))
        self.store.renew(number, self.ghost[1])
        name = self._new()
        self._doing(lambda: self.lab.transcript.write_bytes(HEADER + record(name, None)), [name])


def _before(view: bytes) -> bytes:
    """What a careful writer puts before a record."""
    return b"\n" if view and not view.endswith(b"\n") else b""


def in_child(work: Callable[[], int]) -> int | None:
    """The result of *work*, done in a child process; None if that has ended as if killed."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads: the child uses none
        pid = os.fork()
    if not pid:
        try:
            os.write(writer, b"%d" % work())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED), status
    return None if status == KILLED else int(said)
