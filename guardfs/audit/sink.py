"""Events become lines of the chain, and lines reach the file: in order, once, or counted as a gap.

Bodies wait here, without a place in the chain, until they are written: so what could not be written today can
be written tomorrow, into another file if need be, and the chain has no hole. One thread uses it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from guardfs.audit.chain import START, VERSION, Head, HeadFile, Place, digest, read_head
from guardfs.audit.encode import Body
from guardfs.audit.logfile import LogFile, link_of, tail_of
from guardfs.errors import GuardError
from guardfs.lanes.writer import Process

MAX_EVENTS = 100_000
MAX_BYTES = 64 << 20
"""Events, and bytes of their encoded bodies, that wait for a log which cannot be written. Beyond, events are
counted, not kept."""

CHECK = 0.25
"""Seconds between two looks at whether the file was replaced, and between two tries to write to a full
disk."""

BATCH = 256
"""Bodies written by one write call: some 128 kB, and a fair share of the interpreter's time."""

TOLD_PROCESSES = 512
"""Processes remembered as described in this file, some kilobytes each; those that live through the start of so many
others are described again."""


def stamp(time_ns: int) -> str:
    """Wall clock ns since the epoch as the log writes it."""
    second, micro = divmod(time_ns // 1000, 1_000_000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}Z"


class Gap:
    """An outage of the log: what was kept, and what had to be given up."""

    def __init__(self, now_ns: int, error: str) -> None:
        self.count = 0
        self.held = 0
        self.first = self.last = now_ns
        self.error = error

    def lose(self, count: int, first: int, last: int) -> None:
        if not self.count:
            self.first = first
        self.count += count
        self.last = last


class Sink:
    """Writes bodies to the log at *path* and the chain's head to *head_path*.

    describe: the body of the event ``process``. notice: the body of a notice, given its op and fields.
    """

    def __init__(
        self,
        path: str,
        head_path: str,
        *,
        max_bytes: int,
        keep: int,
        describe: Callable[[Process, int], bytes],
        notice: Callable[[str, dict[str, Any]], Body],
    ) -> None:
        self.file = LogFile(path, keep)
        self.place = START
        self.failing = False
        self.error: str | None = None
        self.head_error: str | None = None
        self.written = self.dropped = self.gaps = self.rotations = self.bytes = 0
        self.lags: deque[int] = deque(maxlen=2048)
        self.pending: deque[Body] = deque()
        self._pending_bytes = 0
        self._head_path = head_path
        self._absolute = os.path.abspath(path)
        self._head: HeadFile | None = None
        self._max_bytes = max_bytes
        self._describe = describe
        self._notice = notice
        self._told: set[tuple[int, int, str | None, tuple[str, ...]]] = set()
        self._told_objects: set[Process] = set()  # the same by identity: no tuple to hash for each event
        self._gap: Gap | None = None
        self._next_check = 0.0
        self._next_rotation = 0.0

    # ---- beginning and end

    def bound(self, max_bytes: int, keep: int) -> None:
        """From now on rotate at *max_bytes* and keep *keep* rotated files."""
        self._max_bytes = max_bytes
        self.file.keep = keep

    def open(self) -> None:
        """Opens the log and finds the chain's place in it; raises GuardError, or OSError of a disk that is
        broken or full."""
        try:
            self._head = HeadFile(self._head_path)
        except OSError as error:
            raise GuardError(
                f"{self._head_path}: {error.strerror}", "give --state a directory that this user may write"
            ) from error
        self.file.open()
        tail = self.file.tail()
        place, torn = tail.place, tail.torn
        if torn:
            line = link_of(torn)
            if line is not None and (line.seq, line.prev) == (place.seq + 1, place.hash):
                self.file.write(b"\n")  # killed between a line and its newline: the line is whole
                place, torn = Place(line.seq, digest(torn)), b""
            else:
                self.file.cut(tail.whole)
        if place == START:
            place = self._rotated_place()
        self.place = self._after_head(place)
        if torn:
            fields = {"lost_bytes": len(torn), "sha256": digest(torn)}
            self.put(
                self._notice("torn", {**fields, "text": torn[:2000].decode("utf-8", "backslashreplace")})
            )
        self._say("started")

    def _rotated_place(self) -> Place:
        try:
            fd = os.open(self.file.path + ".1", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return START
        try:
            return tail_of(fd, os.fstat(fd).st_size).place
        except OSError:
            return START
        finally:
            os.close(fd)

    def _after_head(self, place: Place) -> Place:
        """Where the chain goes on: at the log's end, or at the head's where the log ends before it or
        differs.

        Going on at the head leaves the hole in the chain for `verify` to find; going on at the log's end
        would hide it.
        """
        head = read_head(self._head_path)
        if head is None or head.seq < place.seq or head.place == place:
            return place
        if head.file not in ("", self._absolute):
            if place != START:
                return place  # another log's head
            self._say("moved", before=head.file)
        elif head.seq == place.seq:
            self._say("rewritten")
        else:
            self._say("missing", missing=head.seq - place.seq)
        return head.place

    def close(self) -> None:
        """Syncs and closes; what still waits is lost. Never raises."""
        try:
            self.file.sync()
            if self._head is not None:
                self._head.sync()
        except OSError as error:
            self.error = str(error)
        self.file.close()
        if self._head is not None:
            self._head.close()

    # ---- events

    def put(self, body: Body) -> None:
        """Takes one event, to be written by the next `flush`; counts it as lost where too much waits
        already."""
        if len(self.pending) >= MAX_EVENTS or self._pending_bytes >= MAX_BYTES:
            self.lose(1, body.time_ns, body.time_ns, self.error or "the log was too slow")
            return
        self.pending.append(body)
        self._pending_bytes += len(body.text)

    def lose(self, count: int, first_ns: int, last_ns: int, error: str) -> None:
        """Counts *count* events, done between *first_ns* and *last_ns*, that no line will tell of."""
        if self._gap is None:
            self._gap = Gap(first_ns, error)
        self._gap.lose(count, first_ns, last_ns)
        self.dropped += count

    def flush(self, *, force: bool = False) -> bool:
        """Writes all that waits, and the head; False if the log cannot be written now. Never raises OSError.

        A log that failed is tried again after `CHECK` seconds, or at once with *force*.
        """
        if not self.check(force=force):
            return False
        if not self.pending and self._gap is None:
            return not self.failing
        before = self.place
        while self.pending:
            if not self._write_some():
                break
        else:
            if self._gap is not None:
                self._end_gap()
        if self.place is not before:
            self._write_head()
        return not self.failing

    def check(self, *, force: bool = False) -> bool:
        """Looks whether others replaced, cut or lengthened the file, four times a second. False: there is no
        log now."""
        self.file.lock()
        now = time.monotonic()
        if now < self._next_check and not force and (self.failing or not self.pending):
            return not self.failing
        self._next_check = now + CHECK
        changed = self.file.changed()
        if changed is None:
            return True
        inode = self.file.inode
        if changed == "replaced":
            try:
                self.file.open()
            except (OSError, GuardError) as error:
                self._fail(error)
                return False
        if changed != "grown":
            self._forget_told()
        self._say(changed, first=True, **({"inode": inode} if changed == "replaced" else {}))
        return self._mend_end()

    # ---- writing

    def _write_some(self) -> bool:
        """Writes up to `BATCH` bodies; False if not all of them could be written. Rotates before the file
        grows too long."""
        seq, prev = self.place
        lines: list[bytes] = []
        marks: list[tuple[int, str, int]] = []  # of each line: seq, hash, bodies written once it is
        told: list[tuple[int, Process]] = []  # processes described here, each with its line's index
        room = self._max_bytes - self.file.size
        for number, body in enumerate(self.pending):
            begin, texts = len(lines), [body.text]
            process = body.process
            if process is not None and process not in self._told_objects and self._is_new(process, told):
                told.append((begin, process))
                texts.insert(0, self._describe(process, body.time_ns))
            for text in texts:
                seq += 1
                line = b'{"v":1,"seq":%d,"prev":"%b",%b' % (seq, prev.encode(), text)
                prev = sha256(line).hexdigest()
                lines.append(line)
                marks.append((seq, prev, number))
                room -= len(line) + 1
            marks[-1] = (seq, prev, number + 1)
            if room < 0 and (number or self.file.size) and time.monotonic() >= self._next_rotation:
                # the last body begins the next file
                return self._append(lines[:begin], marks[:begin], told) and self._rotate()
            if number + 1 >= BATCH:
                break
        return self._append(lines, marks, told)

    def _rotate(self) -> bool:
        self._write_head()
        try:
            self.file.rotate()
        except OSError as error:  # a log that grows too long is better than none
            self.error = f"{self.file.path}: cannot rotate: {error.strerror}"
            self._next_rotation = time.monotonic() + 10
            return True
        self.rotations += 1
        self._forget_told()
        self._say("rotated", first=True)
        return True

    def _append(
        self, lines: list[bytes], marks: list[tuple[int, str, int]], told: list[tuple[int, Process]]
    ) -> bool:
        if not lines:
            return True
        data = b"\n".join(lines) + b"\n"
        done, error = self.file.write(data)
        count = len(lines) if error is None else data.count(b"\n", 0, done)
        if count:
            seq, prev, bodies = marks[count - 1]
            self.place = Place(seq, prev)
            self.written += count
            self.bytes += done
            now = time.time_ns()
            for _ in range(bodies):
                body = self.pending.popleft()
                self._pending_bytes -= len(body.text)
                if body.timed:
                    self.lags.append(now - body.time_ns)
            for index, process in told:
                if index < count:
                    self._told.add(_key(process))
                    self._told_objects.add(process)
        if error is not None:
            self._fail(error)
            return False
        if self.failing:
            self.failing = False
            self.error = None
        return True

    def _is_new(self, process: Process, told: list[tuple[int, Process]]) -> bool:
        if any(process is other for _, other in told):
            return False
        if len(self._told) > TOLD_PROCESSES:
            self._forget_told()
        if _key(process) in self._told:
            self._told_objects.add(process)
            return False
        return True

    def _forget_told(self) -> None:
        self._told.clear()
        self._told_objects.clear()

    def _fail(self, error: OSError | GuardError) -> None:
        self.error = f"{self.file.path}: {error.strerror}" if isinstance(error, OSError) else error.what
        self._next_check = time.monotonic() + CHECK
        self.failing = True
        if self._gap is None:
            self._gap = Gap(time.time_ns(), self.error)

    def _end_gap(self) -> None:
        """The log is back and all that was kept is written: says what happened."""
        gap, self._gap = self._gap, None
        assert gap is not None
        last = gap.last if gap.count else time.time_ns()
        fields = {"count": gap.count, "from": stamp(gap.first), "to": stamp(last), "error": gap.error}
        self.pending.append(self._notice("gap", fields))
        self.gaps += 1
        if not self._write_some() and self.pending:  # full again: said with the next outage
            self.pending.pop()
            self.gaps -= 1
            self._gap = gap

    def _mend_end(self) -> bool:
        """Ends an unfinished line that somebody else left at the file's end, so that ours begins on its
        own."""
        tail = self.file.tail() if self.file.size else None
        if tail is None or not tail.torn:
            return True
        _, error = self.file.write(b"\n")
        if error is not None:
            self._fail(error)
        return error is None

    def _say(self, reason: str, *, first: bool = False, **fields: Any) -> None:
        """An event ``log``: something about the file itself. first: before all that waits."""
        body = self._notice("log", {"reason": reason, "head": self._head_path, **fields})
        if first:
            self.pending.appendleft(body)
        else:
            self.pending.append(body)
        self._pending_bytes += len(body.text)

    def _write_head(self) -> None:
        if self._head is None:
            return
        file = self.file
        head = Head(VERSION, self.place.seq, self.place.hash, self._absolute, file.inode, file.size)
        try:
            self._head.write(head)
            self.head_error = None
        except (OSError, UnicodeEncodeError) as error:
            self.head_error = f"{self._head_path}: {error}"


def _key(process: Process) -> tuple[int, int, str | None, tuple[str, ...]]:
    return process.tgid, process.start, process.exe, process.args
