"""What a writer has called fsync for is on the disk in one place at least at any moment: a power cut loses nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simulator import enforced_agents as agents
from tests.simulator.enforced_agents import Turn
from tests.simulator.enforced_kernel import File
from tests.simulator.enforced_world import Process
from tests.simulator.faulty_world import FaultyWorld
from tests.support.direct import finish
from tests.support.faults import Faults

Call = tuple[str, str]


class Disk:
    """The calls that matter, in order: which file was synced, and which entry of the journal was removed."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, name: str, args: tuple[Any, ...]) -> None:
        call = name.partition(".")[2]
        if call in ("fsync", "pwrite"):
            self.calls.append((call, os.path.basename(os.readlink(f"/proc/self/fd/{args[0]}"))))
        elif name == "branches.unlink":
            self.calls.append((call, os.path.basename(args[0])))

    def index(self, *call: str) -> int:
        """Where *call* was made last."""
        return max(at for at, each in enumerate(self.calls) if each == call)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def world(tmp_path: Path, disk: Disk) -> Iterator[FaultyWorld]:
    faults = Faults()
    with faults.installed():
        made = FaultyWorld(tmp_path, faults)
        author = made.process("before")
        for _ in agents.append(made, author, author.main, lambda leaf: [made.record("user", "before", leaf)]):
            pass
        made.kill(author)
        faults.seen = disk
        faults.arm(None)
        yield made
        made.end()


def fenced(world: FaultyWorld) -> tuple[Process, Iterator[None]]:
    """An agent with a fence, and the rest of its turn."""
    gateway = world.process("gateway")
    turn = Turn(world, gateway, ("assistant", "assistant")).steps()
    while not world.guard.judge.machine.open_fences:
        next(turn)
    return gateway, turn


def opened(world: FaultyWorld, flags: int = os.O_WRONLY | os.O_APPEND) -> tuple[Process, File]:
    """A file that another process has opened."""
    script = world.process("script")
    for _ in (steps := world.open(script, script.main, flags)):
        pass
    steps.close()
    return script, script.files[-1]


def written(world: FaultyWorld, script: Process, file: File) -> None:
    record = world.record("user", "script", world.last(file))
    world.write(script, script.main, file, [record])


def ended(world: FaultyWorld, *processes: Process) -> None:
    for process in processes:
        world.kill(process)
    world.views.due(b"a.jsonl", now=True)
    assert not world.views.of
    world.faults.disarm()
    world.check_files()


def test_it_is_synced_in_the_transcript_before_the_journal_drops_it(world: FaultyWorld, disk: Disk) -> None:
    gateway, _ = fenced(world)
    script, file = opened(world)
    written(world, script, file)
    world.sync(script, script.main, file)
    ended(world, script, gateway)
    assert disk.index("pwrite", "a.jsonl") < disk.index("fsync", "a.jsonl") < disk.index("unlink", "1.json")


def test_a_sync_that_is_under_way_while_it_is_rebased_is_done_in_the_transcript(
    world: FaultyWorld, disk: Disk
) -> None:
    gateway, _ = fenced(world)
    script, file = opened(world)
    written(world, script, file)
    under_way = world.guard.fsync(file.handle, False)
    ended(world, gateway)
    finish(under_way)
    assert disk.index("pwrite", "a.jsonl") < disk.index("fsync", "a.jsonl") < disk.index("unlink", "1.json")


def test_a_branch_that_takes_the_place_of_a_synced_one_is_synced_first(
    world: FaultyWorld, disk: Disk
) -> None:
    gateway, _ = fenced(world)
    script, file = opened(world, os.O_RDWR | os.O_APPEND)
    written(world, script, file)
    world.sync(script, script.main, file)
    world.kernel.by_name(script.main, b"a.jsonl", lambda node: None)
    world.guard.change(file.node, handle=file.handle, size=world.kernel.fstat(script.main, file).size - 1)
    world.guard.change(file.node, handle=file.handle, size=30)
    assert disk.index("fsync", "2.data") < disk.index("unlink", "1.json")
    assert disk.index("fsync", "2.json") < disk.index("unlink", "1.json")
    world.kill(script)
    world.kill(gateway)


def test_what_is_carried_from_a_file_that_is_to_be_removed_is_synced_first(
    world: FaultyWorld, disk: Disk
) -> None:
    gateway, turn = fenced(world)
    remover = world.process("remover")
    world.unlink(remover, remover.main)
    script = world.process("script")
    for _ in turn:
        if len([record for record in world.written if record.author.endswith(":run")]) > 1:
            break
    made = world.kernel.make(script.main, b"a.jsonl")
    assert made is not None
    script.files.append(made)
    written_anew = [world.record("session", "script", None), world.record("user", "script", None)]
    world.write(script, script.main, made, written_anew)
    world.kill(gateway)
    world.kill(script)
    world.views.due(b"a.jsonl", now=True)
    carried = [notice.fields["carried"] for notice in world.guard.log.notices("ghost")]
    assert carried and carried[0] > 0
    synced = [at for at, call in enumerate(disk.calls) if call[0] == "fsync" and call[1].endswith(".data")]
    assert synced and synced[-1] < max(at for at, call in enumerate(disk.calls) if call[1].endswith(".ghost"))
