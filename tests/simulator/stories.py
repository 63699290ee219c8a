"""One story: who takes part, in which order they get their turns, and what has to be true at the end."""

from __future__ import annotations

from collections.abc import Callable

from guardfs.fence.effects import FenceChecked, Forgotten, Incident
from guardfs.fence.machine import Machine
from guardfs.fence.versions import DEFAULT, Rule
from tests.simulator import agents
from tests.simulator.agents import Steps, Turn
from tests.simulator.world import Process, World

_IN_GATEWAY: dict[str, Callable[[World, Process], Steps]] = {
    "turn": lambda world, gateway: Turn(world, gateway, "run", ("", "assistant", "")).steps(),
    "short turn": lambda world, gateway: Turn(world, gateway, "run", ("",)).steps(),
    "tool turn": lambda world, gateway: Turn(
        world, gateway, "run", ("assistant", "toolResult", "assistant")
    ).steps(),
    "mirror": lambda world, gateway: agents.mirror(world, gateway, True),
    "idle mirror": lambda world, gateway: agents.mirror(world, gateway, False),
    "/new": lambda world, gateway: agents.new_session(world, gateway, False),
    "compact lines": lambda world, gateway: agents.new_session(world, gateway, True),
    "compaction": agents.compaction,
    "lstat": agents.main_noise,
    "control": agents.control,
    "own write outside": agents.own_outside,
}
_SCRIPTS = (
    "user", "assistant", "custom", "split", "honest", "steal",
    "ATTRIBUTES", "TRUNCATE", "REWRITE", "RENAME_OVER", "RENAME_AWAY", "UNLINK",
)  # fmt: skip
_EVENTS: dict[str, Callable[[World, Process], None]] = {
    "drift": lambda world, _: world.below(True, True),
    "unnoticed drift": lambda world, _: world.below(True, False),
    "unseen append": lambda world, _: world.below(False, True),
    "unnoticed append": lambda world, _: world.below(False, False),
    "a second": lambda world, _: world.wait(1),
    "an hour": lambda world, _: world.wait(3600),
    "crash": lambda world, gateway: world.kill(gateway) if gateway.alive else None,
}
PARTS = (*_IN_GATEWAY, "local", "second gateway", *_SCRIPTS, *_EVENTS)
"""Everybody who can take part. `local` is a second process with its own fence."""

_ENOUGH = 5000


def play(parts: list[str], order: bytes, rule: Rule = DEFAULT) -> World:
    """Plays one story. Each byte of *order* says who is next; then all go on in turn until they are through."""
    world = World(Machine(rule=rule))
    try:
        _play(world, parts, order)
    except Exception as failure:
        raise AssertionError("\n".join([f"{failure}. The story:", *world.story])) from None
    return world


def _play(world: World, parts: list[str], order: bytes) -> None:
    gateway = world.process("gateway")
    waiting = [(*_begin(world, gateway, part), part) for part in parts]
    for byte in order:
        waiting = _step(world, waiting, byte)
    for turn in range(_ENOUGH):
        if not waiting:
            break
        waiting = _step(world, waiting, turn)
    assert not waiting, f"{[part for *_, part in waiting]} never came to an end"
    for process in world.processes:
        if process.alive:
            world.kill(process)
    _check(world)


def _begin(world: World, gateway: Process, part: str) -> tuple[Process, Steps]:
    if part in _IN_GATEWAY:
        return gateway, _IN_GATEWAY[part](world, gateway)
    if part in _EVENTS:
        return world.process(part), _once(lambda: _EVENTS[part](world, gateway))
    process = world.process(part.lower().replace("_", " "))
    if part in _SCRIPTS:
        return process, agents.script(world, process, part)
    deltas = ("assistant",) if part == "local" else ("", "assistant", "")
    return process, _then_exit(world, process, Turn(world, process, part, deltas).steps())


def _once(act: Callable[[], None]) -> Steps:
    yield
    act()


def _then_exit(world: World, process: Process, steps: Steps) -> Steps:
    yield from steps
    yield
    world.kill(process)


def _step(
    world: World, waiting: list[tuple[Process, Steps, str]], number: int
) -> list[tuple[Process, Steps, str]]:
    waiting = [each for each in waiting if each[0].alive]
    if waiting:
        chosen = waiting[number % len(waiting)]
        if next(chosen[1], 0) == 0:
            waiting.remove(chosen)
        world.check_owners()
    return waiting


def _check(world: World) -> None:
    """The machine's incidents are the deaths, neither more nor less, and each names one that really changed the
    file."""
    incidents = [each for each in world.effects if isinstance(each, Incident)]
    told = sorted((each.fence.process, each.wall) for each in incidents)
    died = sorted((each.process, each.wall) for each in world.deaths)
    assert told == died, f"{len(died)} turns died, and there are {len(told)} incidents, or they are others"
    causes = {(each.process, each.wall): each.causes for each in world.deaths}
    for each in incidents:
        real = causes[each.fence.process, each.wall]
        assert each.culprit is not None, "an incident without a culprit"
        if each.culprit.seq == 0:
            assert each.kind in ("drift", "unseen") and real & world.unnoticed, (
                "nobody changed anything unnoticed"
            )
        else:
            assert each.culprit.seq in real, (
                f"event {each.culprit.seq} is blamed, and was not in the owner's way"
            )
    accepted = sorted(world.accepted)
    found = sorted(
        (each.fence.process, each.wall)
        for each in world.effects
        if isinstance(each, FenceChecked) and each.outcome in ("accepted", "survived")
    )
    assert found == accepted, "what the agents accepted, and what the machine saw them accept, differ"
    assert all(each.changes for each in world.effects if isinstance(each, Forgotten))
    assert world.machine.open_fences == 0 and not world.machine.processes(), "something is left of the dead"
