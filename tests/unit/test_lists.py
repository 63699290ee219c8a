"""Lists that are being read: told apart by their offsets, and bounded."""

from __future__ import annotations

from guardfs.audit.event import Kind
from guardfs.mount.lists import Begun, place_in
from guardfs.mount.nodes import Node

NODE = Node(2, 1, 1, Kind.OTHER, is_dir=True)


def rows(count: int) -> list[tuple[bytes, int, int]]:
    return [(b"%d" % number, number, 0) for number in range(count)]


def test_an_offset_tells_the_list_and_the_place() -> None:
    lists = Begun()
    first, second = lists.new(NODE, 0), lists.new(NODE, 0)
    lists.taken(first, rows(3))
    lists.taken(second, rows(3))
    assert lists.at(first.offset(2)) is first and lists.at(second.offset(2)) is second
    assert place_in(first.offset(2)) == place_in(second.offset(2)) == 2
    assert first.offset(1) > 0 and second.offset(1 << 20) < 1 << 62
    lists.ended(first)
    assert lists.at(first.offset(2)) is None and lists.at(second.offset(2)) is second


def test_offsets_of_the_first_daemon_that_opened_directories_lead_to_no_list() -> None:
    lists = Begun()
    lists.taken(lists.new(NODE, 0), rows(3))
    assert lists.at(2) is None and place_in(2) == 2


def test_the_oldest_of_many_lists_are_let_go() -> None:
    lists = Begun()
    begun = [lists.new(NODE, 0) for _ in range(100)]
    for each in begun:
        lists.taken(each, rows(3))
    assert len(lists) == 64
    assert lists.at(begun[0].offset(1)) is None and lists.at(begun[-1].offset(1)) is begun[-1]


def test_few_large_lists_are_as_many_as_their_names_allow_and_one_always_is() -> None:
    lists = Begun()
    large = [lists.new(NODE, 0) for _ in range(3)]
    for each in large:
        lists.taken(each, rows(150_000))
    assert len(lists) == 1 and lists.at(large[-1].offset(1)) is large[-1]
    lists.ended(large[-1])
    small = lists.new(NODE, 0)
    lists.taken(small, rows(2))
    assert len(lists) == 1
