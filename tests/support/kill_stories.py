"""Turns of an agent, and others that change its transcript meanwhile, on a guard that may die at any moment.

    python -m tests.support.kill_stories STORY DIRECTORY SAID [stay]

Before and after each write the file SAID is told of its records (`tests.support.lab.say`). Ends with status 0 if the
story came to its end, and with 3 if the mount died under it; *stay*: it does not end by itself then.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.agent import NAME, Agent
from tests.support.agent import record as of_agent
from tests.support.lab import HEADER, ids, record, say

START = HEADER + record("base0001", None)
GONE = 3
FAILED = 1


class Teller(Agent):
    """An agent that tells of its appends."""

    def __init__(self, directory: Path, said: Path, first: int = 1) -> None:
        super().__init__(directory, first)
        self.said = said
        self.leaf = "base0001"
        self._seen: tuple[int, ...] = ()
        self._relies: tuple[int, ...] = ()

    def look(self) -> object:
        st = super().look()
        self._seen = () if not isinstance(st, os.stat_result) else fingerprint(st)
        return st

    def check(self) -> None:
        """A turn dies of a transcript that is not what it was when the agent looked last."""
        self.look()
        assert self._seen == self._relies, f"the turn dies: {self._relies} became {self._seen}"

    def begin(self) -> None:
        super().begin()
        self._relies = self._seen

    def delta(self) -> None:
        if not self._relies:
            return super().delta()
        self.cycle(self.check, self.append, self.look)
        self._relies = self._seen
        return None

    def end(self) -> None:
        if not self._relies:
            return super().end()
        self.cycle(self.check)
        self._relies = ()
        return None

    def append(self) -> None:
        name = f"{self._next:08x}"
        say(self.said, "trying", [name], [])
        super().append()
        say(self.said, "done", [name], [])

    def read(self) -> bytes:
        """It goes on from the last record of what it reads."""
        data = super().read()
        found = ids(data)
        self.leaf = found[-1] if found else self.leaf
        return data

    def turn(self, *between: Callable[[], object]) -> None:
        """One turn, with something done after each of its cycles."""
        self.begin()
        for act in between:
            act()
            self.delta()
        self.end()


def fingerprint(st: os.stat_result) -> tuple[int, ...]:
    """What the agent remembers of a file."""
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def other(work: Callable[[], object]) -> None:
    """Do *work* in another process; ENOTCONN if the mount died under it."""
    pid = os.fork()
    if not pid:
        status = FAILED
        try:
            status = _status(work)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == GONE:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    assert status == 0, status


def _status(work: Callable[[], object]) -> int:
    try:
        work()
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV):
            return GONE
        raise
    return 0


class Stories:
    """Each method is a story."""

    def __init__(self, directory: Path, said: Path) -> None:
        self.path = directory / NAME
        self.said = said
        self.agent = Teller(directory, said)
        self._next = 0

    def _name(self) -> str:
        self._next += 1
        return f"other{self._next:03}"

    def _append(self, *, sync: bool = False) -> None:
        name = self._name()

        def work() -> None:
            leaf = ids(self.path.read_bytes())[-1]
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            say(self.said, "trying", [name], [])
            os.write(fd, record(name, leaf))
            say(self.said, "done", [name], [])
            if sync:
                os.fsync(fd)
            os.close(fd)

        other(work)

    def append(self) -> None:
        """A script appends, and syncs."""
        self.agent.turn(self._append, lambda: self._append(sync=True))

    def many(self) -> None:
        """Two turns, and a record that is rebased in pieces."""
        name = self._name()

        def big() -> None:
            data = record(name, "base0001", 1_300_000)
            say(self.said, "trying", [name], [])
            with self.path.open("ab", buffering=0) as file:
                at = 0
                while at < len(data):
                    at += file.write(data[at:]) or 0
            say(self.said, "done", [name], [])

        self.agent.turn(lambda: other(big), self._append)
        self.agent.turn(self._append)

    def replace(self) -> None:
        """A sync tool's temporary file takes the name; then a script appends."""
        name = self._name()

        def work() -> None:
            data = self.path.read_bytes()
            temporary = self.path.with_name("sync-tool")
            temporary.write_bytes(data + record(name, ids(data)[-1]))
            say(self.said, "trying", [name], [])
            os.rename(temporary, self.path)
            say(self.said, "done", [name], [])

        self.agent.turn(lambda: other(work), self._append)

    def rewrite(self) -> None:
        """A script writes the file anew."""
        name = self._name()

        def work() -> None:
            gone = ids(self.path.read_bytes())
            say(self.said, "trying", [name], gone)
            with self.path.open("wb", buffering=0) as file:
                file.write(HEADER + record(name, None))
            say(self.said, "done", [name], gone)

        self.agent.turn(lambda: other(work))

    def new(self) -> None:
        """The agent's own process renames the transcript away, and then makes another one, as for a compaction."""
        name = self._name()

        def away() -> None:
            os.rename(self.path, self.path.with_name(f"{NAME}.reset.T"))

        def anew() -> None:
            say(self.said, "trying", [name], [])
            with self.path.open("wb", buffering=0) as file:
                file.write(HEADER + record(name, None))
            say(self.said, "done", [name], [])

        self.agent.turn(self._append, away, anew)

    def remove(self) -> None:
        """Another process removes it."""

        def remove() -> None:
            say(self.said, "loose", ids(self.path.read_bytes()), [])
            other(self.path.unlink)

        self.agent.turn(self._append, remove)

    def two(self) -> None:
        """A second agent, in a process of its own, with a turn of its own."""

        def work() -> None:
            second = Teller(self.path.parent, self.said, 0x100)
            second.leaf = "00000001"
            second.turn(lambda: None, lambda: None)

        self.agent.turn(lambda: other(work), lambda: None)

    def absent(self) -> None:
        """A note for a transcript that does not exist yet: the agent's own process makes it, and the run does not see
        it."""
        self.path.unlink()
        agent, name = self.agent, self._name()
        agent.leaf = None
        say(self.said, "loose", ["base0001"], [])
        agent.cycle(agent.read, agent.look, agent.look)

        def note() -> None:
            if not self.path.exists():
                fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.write(fd, HEADER)
                os.close(fd)
            agent.look()
            agent.read()
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            say(self.said, "trying", [name], [])
            os.write(fd, of_agent(name, None, "assistant"))
            say(self.said, "done", [name], [])
            os.close(fd)

        agent.cycle(note)
        agent.cycle(agent.look, agent.look)

        def flush() -> None:
            agent.append_raw(HEADER)
            agent.append()

        agent.cycle(agent.look, flush, agent.look)
        agent.delta()
        agent.end()


STORIES = ("append", "many", "replace", "rewrite", "new", "remove", "two", "absent")

if __name__ == "__main__":
    told = Stories(Path(sys.argv[2]), Path(sys.argv[3]))
    status = _status(getattr(told, sys.argv[1]))
    if sys.argv[4:] == ["stay"] and status == 0:
        signal.pause()
    sys.exit(status)
