"""Stories in whose course a system call of the guard fails, and what has to be true all the same.

The actors are those of the other stories. Whoever gets an error ends. When all are through, the faults end, and so does
the guard; the next one takes over what is on the disk. Then every record whose write returned is there, once; and an
owner saw something change under it only where the guard has said so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from guardfs.audit.event import Kind
from guardfs.errors import GuardError
from guardfs.fence.staging import Key
from guardfs.mount.caller import Caller
from guardfs.mount.merging import Merger
from guardfs.mount.recovery import Recovered
from tests.simulator import enforced_agents as agents
from tests.simulator.enforced_kernel import File, Kernel
from tests.simulator.enforced_stories import Part, _begin
from tests.simulator.enforced_world import ID, LOCK, TRANSCRIPT, BrokenError, Process, World
from tests.support.descriptors import open_descriptors
from tests.support.faults import Fault, Faults

_T = TypeVar("_T")
_ENOUGH = 2000
FENCED = b"\0" * 12
"""So many of its steps, and a turn that is the first part has a fence open."""


class Story(NamedTuple):
    """See `enforced_stories.play`. ending: what happens to the guard when the others are through: it ``closes`` all,
    ``dies`` (and the faults go on in the recovery), is told to ``flush``, or is switched ``off``."""

    parts: tuple[str, ...]
    order: bytes = FENCED
    there: bool = True
    ending: str = "closes"


class FaultyKernel(Kernel):
    """An error of the guard's own is EIO to the caller, as the wrapper around every operation makes it."""

    def _ask(self, who: Caller, call: Callable[..., _T], *args: Any) -> _T:
        try:
            return super()._ask(who, call, *args)
        except (OSError, AssertionError):
            raise
        except Exception:
            self.guard.internal_error(getattr(call, "__name__", "?"))
            raise OSError(5, "internal error") from None

    def close(self, who: Caller, file: File) -> None:
        """Nobody waits for what becomes of a RELEASE."""
        try:
            super().close(who, file)
        except OSError:
            self._unuse(file.node)


class FaultyWorld(World):
    """Errors are no failure; what was acknowledged counts."""

    kernel_type = FaultyKernel

    def __init__(self, place: Path, faults: Faults) -> None:
        self.faults = faults
        self.excuses: list[str] = []
        self.unrecovered: list[Recovered] = []
        self.either: list[set[bytes]] = []  # records that somebody was to destroy who was told of an error
        super().__init__(place)

    def check_guard(self) -> None:
        """At most one process writes through."""
        machine, staged = self.guard.judge.machine, self.views.of.get(TRANSCRIPT)
        owners = machine.owners(TRANSCRIPT)
        if staged is not None and not self.told():
            through = [each for each in owners if staged.staging.of(Key("process", each, "")) is None]
            if len(through) > 1:
                raise BrokenError(f"{through} all write through")

    def take_lock(self, process: Process, who: Caller) -> bool:
        """Where that fails half way, it is taken all the same."""
        try:
            return super().take_lock(process, who)
        except OSError:
            if self.holder is None and (self.directory / LOCK.decode()).exists():
                self.holder = process
            raise

    def drop_lock(self, process: Process, who: Caller) -> None:
        """Where that fails, it stays."""
        holder = self.holder
        try:
            super().drop_lock(process, who)
        except OSError:
            self.holder = holder
            raise

    def shown(self, node_id: int) -> bytes:
        """Seen by nobody, so no fault is met."""
        with self.faults.paused():
            return super().shown(node_id)

    def _doom(self, node_id: int) -> None:
        """What goes through destroys the file, whatever its doer was shown."""
        super()._doom(node_id)
        path, node = self.directory / TRANSCRIPT.decode(), self.guard.nodes.get(node_id)
        if self.told() and path.exists() and node is not None and node.kind is Kind.TRANSCRIPT:
            self._doomed |= set(ID.findall(path.read_bytes()))

    def content(self, file: File) -> bytes:
        """Likewise."""
        with self.faults.paused():
            return super().content(file)

    def told(self) -> bool:
        """Whether the guard has said that something is not as it should be."""
        log = self.guard.log
        return bool(self.guard.internal_errors or log.notices("unstaged") or log.notices("error"))

    def _recovered(self, found: Recovered) -> None:
        if found.merged is None:
            self.unrecovered.append(found)

    def _mount(self) -> None:
        on, self.faults.on = self.faults.on, False  # a daemon that cannot begin ends with an error
        try:
            self._goes_on = on
            super()._mount()
        finally:
            self.faults.on = on

    def _recover(self, merger: Merger) -> None:
        self.faults.on = self._goes_on
        try:
            super()._recover(merger)
        except GuardError:
            self._let_go()
            raise
        finally:
            self.faults.on = False

    def again(self) -> None:
        """The guard is ended as if killed, and another one begins. What cannot be recovered for now stays."""
        if self.store.files or any(
            notice.fields.get("carried") for notice in self.guard.log.notices("ghost")
        ):
            self.deaths += 1
        if self.told():
            self.in_order = False  # it is said so
        self.lost |= self._doomed
        self._doomed = set()
        self._let_go()
        self.unrecovered.clear()
        try:
            self._mount()
        except GuardError as refused:  # it does not start, and says why
            self.story.append(("guard", "does not start:", str(refused)))
            self.faults.disarm()
            self._mount()

    def failed(self, process: Process, error: OSError) -> None:
        """Somebody has got an error, and ends."""
        self.story.append((process.name, "is told", str(error)))
        if self._doomed:
            self.either.append(self._doomed)
            self.destroyed += 1
            self._doomed = set()
        self.kill(process)

    def check_files(self) -> None:
        """What was to be destroyed is so, or is not; never a part of it."""
        there = b"".join(path.read_bytes() for path in self.directory.iterdir() if path.is_file())
        for records in self.either:
            missing = {name for name in records if b'"id":"%b"' % name not in there}
            if missing and any(self.copies.get(name, 0) < 2 for name in records - missing):
                raise BrokenError(f"of {records} only {missing} is gone")
            self.lost |= missing
        super().check_files()

    def nothing_waits(self) -> None:
        """All has come to its end; the journal is empty."""
        if self.unrecovered:
            raise BrokenError(f"could not be recovered: {self.unrecovered}")
        left = sorted(os.listdir(self.store.path)) if os.path.exists(self.store.path) else []
        if left or self.views.of:
            raise BrokenError(f"the journal still holds {left}")


def play(story: Story, place: Path, faults: Faults, fault: Fault | None) -> FaultyWorld:
    """Plays *story* with *fault*. faults: installed. place: an empty directory."""
    before = open_descriptors()
    world = FaultyWorld(place, faults)
    try:
        try:
            _play(world, story, fault)
        finally:
            faults.disarm()
            world.end()
        after = open_descriptors()
        if after != before:
            raise BrokenError(f"{after - before} descriptors were left open")
    except Exception as failure:
        told = [" ".join(map(str, each)) for each in world.story]
        notices = [f"{each.op} {each.fields}" for each in world.guard.log.notices_all()]
        raise AssertionError("\n".join([f"{fault}: {failure!r}. The story:", *told, *notices])) from failure
    return world


def _play(world: FaultyWorld, story: Story, fault: Fault | None) -> None:
    if story.there:
        author = world.process("before")
        for _ in agents.append(
            world, author, author.main, lambda leaf: [world.record("user", "before", leaf)]
        ):
            pass
        world.kill(author)
    gateway = world.process("gateway")
    waiting = [_begin(world, gateway, part) for part in story.parts]
    world.faults.arm(fault)
    for byte in story.order:
        waiting = _step(world, waiting, byte)
    for turn in range(_ENOUGH):
        if not waiting:
            break
        waiting = _step(world, waiting, turn)
    if waiting:
        raise BrokenError(f"{[part.name for part in waiting]} never came to an end")
    _end(world, story.ending)
    world.faults.disarm()
    world.again()
    world.nothing_waits()
    world.check_files()


def _end(world: FaultyWorld, ending: str) -> None:
    if ending == "dies":
        world.again()  # what waits is recovered, or fails to be
        return
    if ending == "flush":
        world.views.everything_due()
    if ending == "off":
        world.guard.judge.switch(enforces=False, off=True)
        world.views.everything_due()
    for process in world.processes:
        if process.alive:
            world.kill(process)
    world.views.due(TRANSCRIPT, now=True)
    world.faults.disarm()
    world.views.everything_due()


def _step(world: FaultyWorld, waiting: list[Part], number: int) -> list[Part]:
    waiting = [each for each in waiting if each.process.alive]
    if not waiting:
        return waiting
    chosen = waiting[number % len(waiting)]
    try:
        if next(chosen.steps, 0) == 0:
            waiting.remove(chosen)
        world.check_guard()
    except OSError as error:
        waiting.remove(chosen)
        world.failed(chosen.process, error)
    except BrokenError as broken:
        if not world.told():
            raise
        world.story.append((chosen.process.name, "finds", str(broken)))
        waiting.remove(chosen)
        world.kill(chosen.process)
    return waiting
