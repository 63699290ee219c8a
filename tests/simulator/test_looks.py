"""The kernel asks twice for one look of the agent's where it holds another node. Others may come in between, above all
on a machine that has much else to do: each look counts once all the same."""

from __future__ import annotations

import pytest

from tests.simulator import enforced_agents as agents
from tests.simulator.enforced_world import TRANSCRIPT, Process, World


@pytest.fixture
def script(world: World, gateway: Process) -> Process:
    made = world.process("append")
    for _ in agents.append(world, made, made.main, lambda leaf: [world.record("user", "append", leaf)]):
        pass
    world.stat(made, made.main)
    return made


@pytest.mark.parametrize("between", [0, 1, 2])
def test_one_that_others_came_into_counts_once_and_so_does_the_next(
    world: World, gateway: Process, script: Process, between: int
) -> None:
    """A check and a refresh, the first of which is asked for twice: the fence stays open."""
    kernel, main = world.kernel, script.main
    with world.pool(gateway) as who:
        assert world.take_lock(gateway, who)
        mine = kernel._lookup(
            who, TRANSCRIPT
        )  # the dentry is the script's: the kernel drops it, and asks again
        for _ in range(between):
            theirs = kernel._lookup(
                main, TRANSCRIPT
            )  # before that the script looks, and finds the dentry as it is
            assert theirs is not None and mine is not None and theirs.node != mine.node
        assert kernel._lookup(who, TRANSCRIPT) == mine
        assert kernel._lookup(who, TRANSCRIPT) == mine  # the refresh
        world.drop_lock(gateway, who)
    assert world.guard.judge.machine.fenced(TRANSCRIPT) == (gateway.key,)
