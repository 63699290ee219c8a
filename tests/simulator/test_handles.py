"""Files that are open while the fence closes: what is written through them afterwards goes where its writer means."""

from __future__ import annotations

import errno
import os

import pytest

from tests.simulator.enforced_agents import Turn
from tests.simulator.enforced_kernel import File
from tests.simulator.enforced_world import TRANSCRIPT, Process, World


def opened(world: World, process: Process, flags: int) -> File:
    for _ in world.open(process, process.main, flags):
        pass
    return process.files[-1]


def written(world: World, process: Process, file: File, leaf: bytes | None = None) -> bytes:
    """A record behind what *file* shows; its id."""
    record = world.record("user", f"{process.name}-{process.tgid}", leaf or world.last(file))
    world.write(process, process.main, file, [record])
    return record.id


def owned(world: World, gateway: Process) -> None:
    """The owner writes, and its fence closes."""
    with world.pool(gateway) as who:
        world.take_lock(gateway, who)
        world.stat(gateway, who)
    file = opened(world, gateway, os.O_WRONLY | os.O_APPEND)
    record = world.record("assistant", "gateway:run", world.last(file))
    world.write(gateway, gateway.main, file, [record])
    world.kill(gateway)


def content(world: World) -> bytes:
    return (world.directory / TRANSCRIPT.decode()).read_bytes()


def test_a_writer_at_its_own_offset_goes_on_behind_what_was_committed(world: World, gateway: Process) -> None:
    script = world.process("script")
    file = opened(world, script, os.O_RDWR)
    file.position = base = len(world.content(file))
    leaf = written(world, script, file)
    owned(world, gateway)
    world.views.due(TRANSCRIPT, now=True)
    assert not world.views.of
    leaf = written(world, script, file, leaf)
    with pytest.raises(OSError) as caught:
        world.kernel.write(script.main, file, b"x", base + 1)
    assert caught.value.errno == errno.EIO
    written(world, script, file, leaf)
    world.kill(script)
    world.check_files()


def test_half_of_a_rewrite_does_not_take_the_place_of_the_whole(world: World, gateway: Process) -> None:
    script = world.process("script")
    before = content(world)
    file = opened(world, script, os.O_WRONLY | os.O_TRUNC)
    first, *rest = before.splitlines(keepends=True)
    world.write_raw(script, script.main, file, first)
    world.kill(gateway)
    world.views.due(TRANSCRIPT, now=True)
    assert content(world) == before
    for line in rest:
        world.write_raw(script, script.main, file, line)
    last = written(world, script, file)
    world.kill(script)
    world.views.due(TRANSCRIPT, now=True)
    assert not world.views.of and content(world).startswith(before) and last in content(world)
    world.check_files()


def test_a_rewrite_that_is_never_gone_on_with_waits_for_nobody(
    world: World, gateway: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = world.process("script")
    before = content(world)
    file = opened(world, script, os.O_WRONLY | os.O_TRUNC)
    world.write_raw(script, script.main, file, before)
    world.kill(gateway)
    monkeypatch.setattr("guardfs.mount.views.views.REWRITE_NS", 0)
    world.views.everything_due()
    assert not world.views.of and content(world) == before


def test_who_has_the_file_open_goes_on_in_the_one_that_was_written_anew(
    world: World, gateway: Process
) -> None:
    patient = world.process("patient")
    held = opened(world, patient, os.O_WRONLY | os.O_APPEND)
    script = world.process("script")
    before = content(world)
    file = opened(world, script, os.O_WRONLY | os.O_TRUNC)
    world.write_raw(script, script.main, file, before)
    written(world, script, file)
    world.kill(script)
    world.kill(gateway)
    world.views.due(TRANSCRIPT, now=True)
    assert not world.views.of
    last = written(world, patient, held)
    assert last in content(world)
    world.kill(patient)
    world.check_files()


def test_a_writer_whose_branch_comes_after_a_rewrite_goes_on_in_the_new_file(
    world: World, gateway: Process
) -> None:
    world.kill(gateway)
    patient = world.process("patient")
    held = opened(world, patient, os.O_WRONLY | os.O_APPEND)  # of the file itself
    owner = world.process("gateway")
    turn = Turn(world, owner, ("assistant",)).steps()
    while not world.guard.judge.machine.open_fences:
        next(turn)
    script = world.process("script")
    before = content(world)
    file = opened(world, script, os.O_WRONLY | os.O_TRUNC)
    world.write_raw(script, script.main, file, before)
    world.kill(script)
    written(world, patient, held)
    assert world.guard.handles[held.handle].live is not None
    world.kill(owner)
    world.views.due(TRANSCRIPT, now=True)
    assert not world.views.of
    last = written(world, patient, held)
    assert last in content(world)
    world.kill(patient)
    world.check_files()


def test_two_that_make_a_file_that_they_do_not_see_both_keep_what_they_write(
    world: World, gateway: Process
) -> None:
    world.kill(gateway)
    remover, agent, other = (world.process(name) for name in ("unlink", "gateway", "append"))
    world.unlink(remover, remover.main)
    turn = Turn(world, agent, ("",)).steps()
    while not world.guard.judge.machine.open_fences:
        next(turn)
    world.wait(16)
    file = opened(world, other, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    written(world, other, file)
    with world.pool(agent) as who:
        assert world.take_lock(agent, who)
        assert world.stat(agent, who) is None  # its run is back, and relies on there being no file
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number in range(2):
        file = world.kernel._make(agent.main, TRANSCRIPT, flags)
        agent.files.append(file)
        record = world.record("user", f"lane {number}", None)
        world.write(agent, agent.main, file, [record])
    for process in (agent, other):
        world.kill(process)
    world.views.due(TRANSCRIPT, now=True)
    world.in_order = False  # three agents began it
    world.check_files()


def test_nodes_that_were_branches_keep_few_descriptors(world: World) -> None:
    for _ in range(80):
        agent, script = world.process("gateway"), world.process("script")
        turn = Turn(world, agent, ("assistant", "assistant")).steps()
        while not world.guard.judge.machine.open_fences:
            next(turn)
        written(world, script, opened(world, script, os.O_WRONLY | os.O_APPEND))
        for live in world.views.of[TRANSCRIPT].lives.values():
            assert live.node is not None
            world.guard.nodes.refer(live.node)  # by a kernel that remembers it for long
        world.kill(script)
        world.kill(agent)
        world.views.due(TRANSCRIPT, now=True)
    assert world.guard.fds.pinned <= 70
    world.check_files()


def test_another_lane_of_a_second_agent_does_not_cut_what_its_run_goes_on_from(
    world: World, gateway: Process
) -> None:
    agent = world.process("local")
    turn = Turn(world, agent, ("assistant", "assistant")).steps()
    while len(world.guard.judge.machine.owners(TRANSCRIPT)) < 2:
        next(turn)
    while agent.mutex is not None:
        next(turn)
    for _ in world.truncate(agent, agent.main, 0):
        pass
    for _ in turn:
        pass
    world.kill(agent)
    world.kill(gateway)
    world.views.due(TRANSCRIPT, now=True)
    world.check_files()


def test_what_waits_behind_a_renamed_file_comes_there_though_it_cannot_at_first(
    world: World, gateway: Process
) -> None:
    script, mover = world.process("script"), world.process("mover")
    file = opened(world, script, os.O_RDWR | os.O_APPEND)
    written(world, script, file)
    world.kill(script)
    assert world.rename(mover, mover.main, TRANSCRIPT, b"old")
    world.store.pwrite = no_room
    world.kill(gateway)
    world.a_second_passes()
    world.views.due(TRANSCRIPT, now=True)
    assert world.views.waiting()
    world.store.pwrite = os.pwrite
    world.views.failed = 0  # it has, and was told so
    world.views.due(TRANSCRIPT, now=True)
    assert not world.views.of and sorted(os.listdir(world.directory)) == ["old"]
    assert not os.listdir(world.store.path)
    world.check_files()


def no_room(fd: int, data: bytes, offset: int) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
