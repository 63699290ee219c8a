"""Fences in a running guard: tells the log what the machine says, watches for the end of owners, keeps the time.

On the loop, all of it. The rules are the machine's (`guardfs.fence.machine`).
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from guardfs.audit.fences import notice_of
from guardfs.audit.log import AuditLog
from guardfs.fence.effects import Effect, FenceOpened, Forgotten, Incident
from guardfs.fence.events import ProcessKey
from guardfs.fence.machine import FenceView
from guardfs.lanes.procfs import start_of
from guardfs.lanes.writer import Writer
from guardfs.policy.judge import Judge
from guardfs.state.tokens import TokenStore

log = logging.getLogger("guardfs.mount")

TICK = 1.0
"""Seconds between two looks for owners that have fallen silent; less where the idle timeout is short."""

MAX_WATCHED = 1000
"""Processes whose end is waited for; beyond, the idle timeout must do."""

_SHOWN = 100
"""Open fences that `status` lists."""


class FenceKeeper:
    """All about the fences of one mount that is not pure. ended: told what the end of a process, or the clock, did to
    fences; ticked: called now and then; went_wrong: told, in an except block, where the guard itself has failed."""

    def __init__(self, judge: Judge, audit: AuditLog, tokens: TokenStore) -> None:
        self._judge = judge
        self._audit = audit
        self._tokens = tokens
        self._watched: set[ProcessKey] = set()
        self._nursery: trio.Nursery | None = None
        self._opened = self._lost = self._saved = self._forgotten = 0
        self.ended: Callable[[tuple[Effect, ...]], None] = lambda effects: None
        self.ticked: Callable[[], object] = lambda: None
        self.went_wrong: Callable[[str], None] = lambda where: log.exception("internal error in %s", where)

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to keep the time."""
        self._nursery = nursery
        nursery.start_soon(self._tick)

    def resume(self) -> None:
        """Wait for the end of those whose cycles and fences an earlier daemon has left."""
        for process in self._judge.machine.processes():
            if process[0] > 0 and process[1] and start_of(process[0]) not in (None, process[1]):
                self._exited(process)  # another process has its number by now
            else:
                self._watch(process)

    def changed(self, writer: Writer | None, effects: tuple[Effect, ...]) -> None:
        """What an operation by *writer* (None: nobody's) did to fences. A writer has taken a lock, or changed a fence:
        the end of its process is waited for."""
        for effect in effects:
            if isinstance(effect, FenceOpened):
                self._opened += 1
                self._tokens.given(effect.fence.token)
            elif isinstance(effect, Incident):
                self._lost += effect.lost
                self._saved += not effect.lost
            elif isinstance(effect, Forgotten):
                self._forgotten += 1
            try:
                notice = notice_of(effect)
                if notice is not None:
                    self._audit.emit(notice)
            except Exception:
                self.went_wrong("telling of a fence")
        if writer is not None and writer.process is not None:
            self._watch((writer.process.tgid, writer.process.start))

    def facts(self) -> dict[str, Any]:
        """For `status`. opened, incidents, saved, forgotten: since the mount; age_ms, silent_ms: of each open fence."""
        mono = time.monotonic_ns()
        machine = self._judge.machine
        shown: list[dict[str, Any]] = []
        for view in machine.fences(mono):
            if len(shown) == _SHOWN:
                break
            shown.append(_shown(view))
        return {
            "open": machine.open_fences,
            "transcripts": machine.places,
            "opened": self._opened,
            "incidents": self._lost,
            "saved": self._saved,
            "forgotten": self._forgotten,
            "watched": len(self._watched),
            "list": shown,
        }

    def of(self, transcript: bytes) -> bytes:
        """The open fences of one transcript, as JSON: the value of its attribute `user.guardfs.status`."""
        views = self._judge.machine.fences(time.monotonic_ns())
        found = [_shown(view) for view in views if view.fence.transcript == transcript]
        return msgspec.json.encode({"v": 1, "fences": found})

    # ---- owners that end

    def _watch(self, process: ProcessKey) -> None:
        if process in self._watched or process[0] <= 0 or len(self._watched) >= MAX_WATCHED:
            return
        if self._nursery is None:
            return
        try:
            descriptor = os.pidfd_open(process[0])
        except OSError as error:
            if error.errno == errno.ESRCH:
                self._exited(process)
            return  # without one, the idle timeout must do
        self._watched.add(process)
        self._nursery.start_soon(self._await_end, process, descriptor)

    async def _await_end(self, process: ProcessKey, descriptor: int) -> None:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
            self._watched.discard(process)
        self._exited(process)

    def _exited(self, process: ProcessKey) -> None:
        try:
            effects = self._judge.exited(process, time.monotonic_ns(), time.time_ns())
        except Exception:
            self.went_wrong("the end of a process")
            return
        self._tell(effects)

    def _tell(self, effects: tuple[Effect, ...]) -> None:
        """Everybody who is to know hears of it, whatever becomes of the others. Never raises."""
        try:
            self.changed(None, effects)
        except Exception:
            self.went_wrong("telling of a fence")
        try:
            self.ended(effects)
        except Exception:
            self.went_wrong("telling of a fence")

    async def _tick(self) -> None:
        while True:
            await trio.sleep(min(TICK, self._judge.idle_timeout / 4, self._judge.linger_ns / 2e9 or TICK))
            effects: tuple[Effect, ...] = ()
            try:
                effects = self._judge.tick(time.monotonic_ns(), time.time_ns())
            except Exception:
                self.went_wrong("the fences' clock")
            self._tell(effects)
            try:
                self.ticked()
            except Exception:
                self.went_wrong("the fences' clock")


def _shown(view: FenceView) -> dict[str, Any]:
    return {
        "path": view.fence.transcript.decode("utf-8", "backslashreplace"),
        "token": view.fence.token,
        "owner": view.fence.lane,
        "tgid": view.fence.process[0],
        "age_ms": view.age // 1_000_000,
        "silent_ms": view.silent // 1_000_000,
        "checks": view.checks,
        "changes": view.changes,
        "locked": view.locked,
    }
