"""The LRU of O_PATH descriptors, on real files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardfs.audit.event import Kind
from guardfs.mount.descriptors import Descriptors
from guardfs.mount.nodes import Node, NodeTable
from tests.support.descriptors import none_left_open


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.nodes = NodeTable(os.fstat(root))
        self.fds = Descriptors(self.nodes.root, root, 16)

    def node(self, name: str) -> Node:
        path = self.directory / name
        if not path.exists():
            path.write_text(name)
        return self.nodes.remember(self.nodes.root, name.encode(), path.lstat(), Kind.OTHER)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with none_left_open():
        made = World(tmp_path)
        yield made
        for node in made.nodes:
            made.fds.drop(node)
        made.fds.close()


def same(fd: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(fd), path.lstat())


def test_no_more_than_the_limit_and_always_the_right_file(world: World) -> None:
    nodes = [world.node(f"f{number}") for number in range(50)]
    for node in [*nodes, *reversed(nodes), *nodes[::3]]:
        assert same(world.fds.of(node), world.directory / node.names[0][1].decode())
        assert len(world.fds) <= 16


def test_the_one_used_longest_ago_goes_first(world: World) -> None:
    nodes = [world.node(f"f{number}") for number in range(16)]
    for node in nodes:
        world.fds.of(node)
    world.fds.of(nodes[0])
    world.fds.of(world.node("one more"))
    assert nodes[0].fd >= 0 and nodes[1].fd < 0


def test_a_symlink_itself_is_held(world: World) -> None:
    (world.directory / "target").write_text("t")
    (world.directory / "link").symlink_to("target")
    node = world.nodes.remember(world.nodes.root, b"link", (world.directory / "link").lstat(), Kind.OTHER)
    assert same(world.fds.of(node), world.directory / "link")


def test_a_pinned_one_survives_unlink_and_pressure(world: World) -> None:
    node = world.node("gone")
    world.fds.pin(node)
    world.fds.pin(node)
    (world.directory / "gone").unlink()
    world.nodes.unname(world.nodes.root, b"gone")
    for number in range(40):
        world.fds.of(world.node(f"f{number}"))
    assert os.fstat(world.fds.of(node)).st_nlink == 0
    assert world.fds.pinned == 1
    world.fds.drop(node)
    assert world.fds.pinned == 0 and node.fd == -1


def test_another_file_under_the_name_is_stale(world: World) -> None:
    node = world.node("f")
    (world.directory / "g").write_text("another")
    os.rename(world.directory / "g", world.directory / "f")
    with pytest.raises(OSError) as caught:
        world.fds.of(node)
    assert caught.value.errno == errno.ESTALE


def test_without_a_name_an_open_file_leads_to_it(world: World) -> None:
    node = world.node("f")
    fd = os.open(world.directory / "f", os.O_RDONLY)
    node.opened.append(fd)
    (world.directory / "f").unlink()
    world.nodes.unname(world.nodes.root, b"f")
    assert os.path.samestat(os.fstat(world.fds.of(node)), os.fstat(fd))
    os.close(fd)


def test_the_limit_is_never_less_than_a_deep_path_needs(world: World) -> None:
    assert Descriptors(world.nodes.root, world.nodes.root.fd, 1)._limit >= 16
