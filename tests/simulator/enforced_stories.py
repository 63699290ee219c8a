"""One enforced story: who takes part, in which order they get their turns, and what has to be true at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.simulator import enforced_agents as agents
from tests.simulator.enforced_agents import Steps, Turn
from tests.simulator.enforced_world import TRANSCRIPT, BrokenError, GuardDied, Process, World

_IN_GATEWAY: dict[str, Callable[[World, Process], Steps]] = {
    "turn": lambda world, gateway: Turn(world, gateway, ("", "assistant")).steps(),
    "short turn": lambda world, gateway: Turn(world, gateway, ("",)).steps(),
    "tool turn": lambda world, gateway: Turn(world, gateway, ("assistant", "toolResult")).steps(),
    "mirror": agents.mirror,
    "/new": lambda world, gateway: agents.new_session(world, gateway, False),
    "compact lines": lambda world, gateway: agents.new_session(world, gateway, True),
    "compaction": agents.compaction,
    "lstat": agents.main_noise,
    "control": lambda world, gateway: agents.outside(world, gateway, "model_change"),
    "own write outside": lambda world, gateway: agents.outside(world, gateway, "assistant"),
}
_SCRIPTS = (
    "append", "honest", "held open", "empty", "truncate and rewrite", "rename over", "rename away", "unlink",
    "chmod", "utimes", "link",
)  # fmt: skip
_EVENTS: dict[str, Callable[[World, Process], None]] = {
    "16 minutes": lambda world, _: world.wait(16),
    "exit": lambda world, gateway: world.kill(gateway) if gateway.alive else None,
    "guard dies": lambda world, _: world.guard_dies(),
    "guard dies in 2 steps": lambda world, _: _dies_in(world, 2),
    "guard dies in 5 steps": lambda world, _: _dies_in(world, 5),
    "guard dies in 9 steps": lambda world, _: _dies_in(world, 9),
}
PARTS = (*_IN_GATEWAY, "local", *_SCRIPTS, *_EVENTS)
"""Everybody who can take part. `local` is a second agent, in a process of its own."""

_ENOUGH = 5000


def _dies_in(world: World, steps: int) -> None:
    world.steps_left = steps


def play(parts: list[str], order: bytes, place: Path, there: bool = True) -> World:
    """Plays one story. Each byte of *order* says who is next; then all go on in turn until they are through. place: an
    empty directory. there: the transcript exists when it begins."""
    world = World(place)
    try:
        _play(world, parts, order, there)
    except Exception as failure:
        told = [" ".join(map(str, each)) for each in world.story]
        raise AssertionError("\n".join([f"{failure!r}. The story:", *told])) from failure
    finally:
        world.end()
    return world


class Part:
    """One who takes part. begun: it has had a turn."""

    def __init__(self, name: str, process: Process, steps: Steps) -> None:
        self.name, self.process, self.steps = name, process, steps
        self.begun = False


def _play(world: World, parts: list[str], order: bytes, there: bool) -> None:
    if there:
        author = world.process("before")
        for _ in agents.append(
            world, author, author.main, lambda leaf: [world.record("user", "before", leaf)]
        ):
            pass
        world.kill(author)
    gateway = world.process("gateway")
    waiting = [_begin(world, gateway, part) for part in parts]
    for byte in order:
        waiting = _step(world, waiting, byte)
    for turn in range(_ENOUGH):
        if not waiting:
            break
        waiting = _step(world, waiting, turn)
    if waiting:
        raise BrokenError(f"{[part.name for part in waiting]} never came to an end")
    for process in world.processes:
        if process.alive:
            _survive(world, lambda process=process: world.kill(process))  # type: ignore[misc]
    world.a_second_passes()
    _survive(world, lambda: world.views.due(TRANSCRIPT, now=True))
    world.views.due(TRANSCRIPT, now=True)
    if world.views.waiting() or world.views.of or world.guard.judge.machine.open_fences:
        raise BrokenError("something is left of the dead")
    world.check_guard()
    world.check_files()


def _begin(world: World, gateway: Process, part: str) -> Part:
    if part in _IN_GATEWAY:
        return Part(part, gateway, _IN_GATEWAY[part](world, gateway))
    if part in _EVENTS:
        return Part(part, world.process(part), _once(lambda: _EVENTS[part](world, gateway)))
    process = world.process(part)
    if part == "local":
        return Part(part, process, _then_exit(world, process, Turn(world, process, ("assistant",)).steps()))
    return Part(part, process, agents.script(world, process, part))


def _once(act: Callable[[], None]) -> Steps:
    yield
    act()


def _then_exit(world: World, process: Process, steps: Steps) -> Steps:
    yield from steps
    yield
    world.kill(process)


def _survive(world: World, act: Callable[[], object]) -> None:
    try:
        act()
    except GuardDied:
        world.guard_dies()


def _step(world: World, waiting: list[Part], number: int) -> list[Part]:
    waiting = [each for each in waiting if each.process.alive]
    if not waiting:
        return waiting
    chosen = waiting[number % len(waiting)]
    chosen.process.begun = True
    try:
        if next(chosen.steps, 0) == 0:
            waiting.remove(chosen)
        world.check_guard()
    except GuardDied:
        world.guard_dies()
    return waiting
