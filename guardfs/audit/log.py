"""The audit log as the daemon sees it: `emit` costs the request path a fraction of a microsecond, a thread
does the rest.

    request path --emit--> queue --(thread)--> merge runs -> encode -> chain -> file

The thread naps between batches while there is something to do: a thread that woke for every event would fight
the request path for the interpreter once an event. With nothing to do it sleeps.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Any

from guardfs.audit.encode import Body, Encoder, Sessions
from guardfs.audit.event import Kind, Notice, Operation
from guardfs.audit.levels import Level, wanted
from guardfs.audit.merge import Merger
from guardfs.audit.redact import Identities
from guardfs.audit.sink import Sink
from guardfs.errors import GuardError

NAP = 0.008
"""Seconds between two batches: well below the 20 ms in which an event is to be on disk, and some events a batch
at 1,000/s."""

LINGER = 20
"""Empty naps before the thread calls itself idle, so that a slow stream of events does not wake it each
time."""

IDLE_CHECK = 1.0
"""Seconds between two looks at the file (was it removed?) while nothing happens."""

FAIR = 64
"""Events after which the thread lets go of the interpreter, in case the request path waits for it: some 300 us.
Letting go costs 30 us where another thread is about to run, so not for each."""

CLOSE_TIMEOUT = 20.0
"""Seconds that `close` waits for the thread, should it hang in a write: an unmount must end."""

MAX_QUEUED = 100_000
CROWD = 32
MAX_QUEUED_RECORDS = 100_000
"""Bounds of the queue, for a thread that hangs in a write to a dead disk: events in all; events up to which
nobody counts the records that they describe; descriptions of records held by the events after those."""


class AuditLog:
    """The log of one mount. `emit` is for one thread (the daemon's loop); the rest may be called by any.

    level: see `levels`. max_bytes: size at which the file is rotated; keep: rotated files kept. hash_key:
    where given, session keys, user and group ids are logged as keyed hashes. sessions: whose transcript is whose;
    without, a session is called as its transcript. inherited: see `LogFile`. failing: True while the
    log cannot be written; nothing is lost until its bounds are reached.
    """

    def __init__(
        self,
        path: str,
        head_path: str,
        *,
        level: Level = "transcripts",
        max_bytes: int = 64 << 20,
        keep: int = 10,
        hash_key: bytes | None = None,
        sessions: Sessions | None = None,
        inherited: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self.level = level
        self._encoder = Encoder(Identities(hash_key) if hash_key else None, sessions)
        self._merger = Merger()
        self._sink = Sink(
            path,
            head_path,
            max_bytes=max_bytes,
            keep=max(keep, 1),
            describe=self._encoder.process,
            notice=self._notice,
        )
        self._sink.file.inherited = inherited
        self._wanted = wanted(level)
        self._queue: deque[Operation | Notice] = deque()
        self._wake = threading.Event()
        self._idle = False
        self._closing = False
        self._reopening = False
        self._crowd_records = 0
        self._lost: deque[int] = deque()  # times of events that found the queue full; bounded by `_lost_more`
        self._lost_more = 0
        self._internal_errors = 0
        self._thread: threading.Thread | None = None
        self._working = threading.Lock()  # whoever takes events from the queue: the thread, or `spare`

    def start(self) -> None:
        """Opens the log, goes on with its chain, starts the thread. Raises GuardError if the log cannot be
        opened."""
        try:
            self._sink.open()
        except OSError as error:
            what = f"{self.path}: cannot go on with this log: {error.strerror}"
            raise GuardError(what, "move it away, or give another --audit") from error
        self._sink.flush()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    # ---- the request path

    def emit(self, item: Operation | Notice) -> None:
        """Takes one event; never blocks, never raises. An `Operation` may not be changed afterwards."""
        queue = self._queue
        if len(queue) < CROWD:
            queue.append(item)
        else:
            self._emit_crowded(item)
        if self._idle:
            self._idle = False
            self._wake.set()

    def _emit_crowded(self, item: Operation | Notice) -> None:
        if len(self._queue) >= MAX_QUEUED:
            if len(self._lost) < 2:
                self._lost.append(item.time_ns)
            else:
                self._lost[-1] = item.time_ns
            self._lost_more += 1
            return
        if item.__class__ is Operation and item.records is not None:
            count = len(item.records)
            if self._crowd_records + count > MAX_QUEUED_RECORDS:
                item.more, item.records = item.more + count, []
            else:
                self._crowd_records += count
        self._queue.append(item)

    def spare(self) -> bool:
        """Makes one event ready for the thread to write; False if there is none, or the thread is at work.

        For the thread that emits, while it has nothing better to do: what is done here, the log's thread need not
        do while a request waits for the interpreter. Takes some 4 us.
        """
        if not self._queue or not self._working.acquire(blocking=False):
            return False
        try:
            self._take(self._queue.popleft())
        except Exception as error:  # as in the thread: a bug here must not reach the request path
            self._internal_errors += 1
            self._sink.error = f"internal error in the log: {error!r}"
        finally:
            self._working.release()
        return True

    def use(self, level: Level, max_bytes: int, keep: int) -> None:
        """From now on take in what *level* says, rotate at *max_bytes*, keep *keep* rotated files."""
        self.level = level
        self._wanted = wanted(level)
        self._sink.bound(max_bytes, max(keep, 1))

    def wants(self, op: str, kind: Kind) -> bool:
        """Whether the level asks for operation *op* on a path of *kind*: then make an `Operation` and `emit`
        it."""
        return self._wanted[op][kind]

    # ---- for everybody

    @property
    def failing(self) -> bool:
        return self._sink.failing

    def stats(self) -> dict[str, Any]:
        """Facts for `status`, JSON-able. lag_ms: from the event's time to its line in the file, of the last
        2,048 events that were not merged. gaps: outages that were logged; dropped: events that never will
        be."""
        sink = self._sink
        lags = sorted(sink.lags.copy())
        last = sink.lags[-1] if lags else None
        return {
            "file": self.path,
            "level": self.level,
            "seq": sink.place.seq,
            "queued": len(self._queue) + len(sink.pending) + len(self._merger.runs),
            "written": sink.written,
            "gaps": sink.gaps,
            "dropped": sink.dropped + self._lost_more,
            "failing": sink.failing,
            "error": sink.error or sink.head_error,
            "internal_errors": self._internal_errors,
            "lag_ms": {
                "p99": round(lags[max(0, -(-len(lags) * 99 // 100) - 1)] / 1e6, 3) if lags else None,
                "last": round(last / 1e6, 3) if last is not None else None,
            },
            "rotations": sink.rotations,
            "bytes": sink.bytes,
        }

    def reopen(self) -> None:
        """Looks at once whether the file was renamed or removed, and begins a new one then (after a rotation
        by others)."""
        self._reopening = True
        self._wake.set()

    def close(self) -> None:
        """Writes all that was emitted, syncs, closes. A log that cannot be written is given up after 2 s,
        one on a disk that does not answer after `CLOSE_TIMEOUT`."""
        self._closing = True
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_TIMEOUT)

    # ---- the thread

    def _run(self) -> None:
        empty = 0
        while not self._closing:
            worked = self._safely_work()
            if self._sink.failing:
                time.sleep(10 * NAP)
            elif worked or self._merger.runs:
                empty = 0
                time.sleep(NAP)
            elif empty < LINGER:
                empty += 1
                time.sleep(NAP)
            else:
                self._idle = True
                woken = False
                if not self._queue and not self._closing and not self._reopening:
                    woken = self._wake.wait(IDLE_CHECK)
                self._wake.clear()
                self._idle = False
                if woken and not self._closing:
                    empty = 0
                    time.sleep(NAP)  # what follows the first event comes into the same batch
        deadline = time.monotonic() + 2
        while not self._finish() and time.monotonic() < deadline:
            time.sleep(10 * NAP)
        self._sink.close()

    def _safely_work(self) -> bool:
        try:
            with self._working:
                return self._work()
        except Exception as error:  # a bug here must not end the log
            self._internal_errors += 1
            self._sink.error = f"internal error in the log: {error!r}"
            time.sleep(NAP)
            return False

    def _work(self) -> bool:
        """One batch; True if there was anything to do."""
        queue, merger, sink = self._queue, self._merger, self._sink
        force, self._reopening = self._reopening, False
        count = len(queue)  # what comes meanwhile is the next batch's
        for number in range(1, count + 1):
            self._take(queue.popleft())
            if not number % FAIR:
                time.sleep(0)
            if len(sink.pending) >= 512 and not sink.failing:
                sink.flush()
        if len(queue) < CROWD:
            self._crowd_records = 0
        if merger.runs:
            for run in merger.due(time.time_ns()):
                self._put(run)
        if self._lost_more:
            lost, self._lost_more = self._lost_more, 0
            times = list(self._lost)
            self._lost.clear()
            sink.lose(lost, times[0], times[-1], "more events than the log could take")
        sink.flush(force=force)
        return count > 0 or bool(sink.pending)

    def _take(self, item: Operation | Notice) -> None:
        if item.__class__ is Operation and (
            self._merger.runs or (item.kind is Kind.OTHER and item.op == "write")
        ):
            for ready in self._merger.take(item):
                self._put(ready)
        else:
            self._put(item)

    def _put(self, item: Any) -> None:
        try:
            body = self._encoder.body(item)
        except Exception as error:  # said in the log: the operation itself cannot be described
            self._internal_errors += 1
            what = getattr(item, "op", type(item).__name__)
            body = self._notice("error", {"where": "audit", "error": repr(error), "of": str(what)})
        self._sink.put(body)

    def _finish(self) -> bool:
        """Writes everything; False if the log cannot be written."""
        self._safely_work()
        for run in self._merger.due(0, everything=True):
            self._put(run)
        try:
            return self._sink.flush(force=True) and not self._queue
        except Exception as error:
            self._internal_errors += 1
            self._sink.error = repr(error)
            return False

    def _notice(self, op: str, fields: dict[str, Any]) -> Body:
        return self._encoder.notice(Notice(op, time.time_ns(), fields))
