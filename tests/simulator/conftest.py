"""Where stories are played, and a beginning that several of them have."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator import enforced_agents as agents
from tests.simulator.enforced_agents import Turn
from tests.simulator.enforced_world import Process, World


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory, where there is such a place: what is tried here is order, not disks."""
    memory = Path("/dev/shm")
    found = tempfile.mkdtemp(prefix="guardfs-stories-", dir=memory if memory.is_dir() else None)
    yield Path(found)
    shutil.rmtree(found)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One transcript, with one record."""
    made = World(tmp_path)
    author = made.process("before")
    for _ in agents.append(made, author, author.main, lambda leaf: [made.record("user", "before", leaf)]):
        pass
    made.kill(author)
    yield made
    made.end()


@pytest.fixture
def gateway(world: World) -> Process:
    """An agent with a fence."""
    made = world.process("gateway")
    turn = Turn(world, made, ("assistant", "assistant")).steps()
    while not world.guard.judge.machine.open_fences:
        next(turn)
    return made
