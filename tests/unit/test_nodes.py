"""The node table: ids are never used twice, and a file keeps its id for as long as the kernel knows it."""

from __future__ import annotations

import os
import stat

from hypothesis import given
from hypothesis import strategies as st

from guardfs.audit.event import Kind
from guardfs.mount.nodes import ROOT_ID, NodeTable


def info(ino: int, *, directory: bool = False, size: int = 0) -> os.stat_result:
    mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
    return os.stat_result((mode, ino, 1, 1, 0, 0, size, 0, 0, 0))


def table() -> NodeTable:
    return NodeTable(info(2, directory=True))


def test_links_share_a_node_and_replies_count() -> None:
    nodes = table()
    first = nodes.remember(nodes.root, b"a", info(10), Kind.OTHER)
    again = nodes.remember(nodes.root, b"b", info(10), Kind.OTHER)
    assert first is again and first.nlookup == 2
    assert nodes.forget(first.id, 1) is None
    assert nodes.entry(nodes.root, b"a") is first
    assert nodes.forget(first.id, 1) is first
    assert nodes.entry(nodes.root, b"a") is None and nodes.get(first.id) is None


def test_the_root_is_never_forgotten() -> None:
    nodes = table()
    assert nodes.forget(ROOT_ID, 1000) is None
    assert nodes[ROOT_ID] is nodes.root


def test_a_detached_files_inode_number_means_another_file() -> None:
    nodes = table()
    old = nodes.remember(nodes.root, b"a", info(10), Kind.OTHER)
    nodes.unname(nodes.root, b"a")
    nodes.detach(old)
    new = nodes.remember(nodes.root, b"a", info(10), Kind.OTHER)
    assert new.id != old.id
    nodes.forget(old.id, 1)
    assert nodes.entry(nodes.root, b"a") is new and nodes.of_file(info(10)) is new


def test_a_directory_in_a_files_place_is_another_node() -> None:
    nodes = table()
    old = nodes.remember(nodes.root, b"a", info(10), Kind.OTHER)
    assert nodes.remember(nodes.root, b"a", info(10, directory=True), Kind.OTHER).id != old.id


def test_paths() -> None:
    nodes = table()
    directory = nodes.remember(nodes.root, b"d", info(3, directory=True), Kind.OTHER)
    file = nodes.remember(directory, b"f", info(4), Kind.OTHER)
    assert (nodes.root.path(), directory.path(), file.path()) == (b".", b"d", b"d/f")
    nodes.name(directory, nodes.root, b"e", Kind.OTHER)
    nodes.unname(nodes.root, b"d")
    assert file.path() == b"e/f"
    nodes.unname(directory, b"f")
    assert file.path() == b"(unlinked)"


def test_a_transcript_stays_one_under_further_names() -> None:
    nodes = table()
    node = nodes.remember(nodes.root, b"a.jsonl", info(10), Kind.TRANSCRIPT)
    nodes.remember(nodes.root, b"backup", info(10), Kind.OTHER)
    assert node.kind is Kind.TRANSCRIPT
    other = nodes.remember(nodes.root, b"x.tmp", info(11), Kind.OTHER)
    nodes.remember(nodes.root, b"y.jsonl", info(11), Kind.TRANSCRIPT)
    assert other.kind is Kind.TRANSCRIPT
    assert node.path() == b"a.jsonl", "and is called by the name that makes it one"


def test_what_was_seen_of_a_forgotten_file_is_remembered_for_a_while() -> None:
    nodes = table()
    node = nodes.remember(nodes.root, b"a", info(10), Kind.OTHER)
    node.seen = (1, 2, 3, 4)
    nodes.forget(node.id, 1)
    assert nodes.last_seen(info(10)) == (1, 2, 3, 4)
    for ino in range(100, 2000):
        nodes.forget(nodes.remember(nodes.root, b"%d" % ino, info(ino), Kind.OTHER).id, 1)
    assert nodes.last_seen(info(10)) is None
    assert len(nodes) == 1 and nodes.entries() == []


steps = st.lists(
    st.tuples(
        st.sampled_from(["look", "unname", "forget", "detach", "rename"]),
        st.integers(0, 4),
        st.integers(10, 14),
    ),
    max_size=60,
)


@given(steps)
def test_the_three_ways_to_a_node_agree(steps: list[tuple[str, int, int]]) -> None:
    nodes = table()
    ids: set[int] = set()
    for step, name_number, ino in steps:
        name = b"n%d" % name_number
        known = nodes.entry(nodes.root, name)
        if step == "look":
            existed = len(nodes)
            node = nodes.remember(nodes.root, name, info(ino), Kind.OTHER)
            if len(nodes) > existed:
                assert node.id not in ids, "an id was used twice"
            ids.add(node.id)
        elif step == "unname":
            nodes.unname(nodes.root, name)
        elif known is not None and step == "forget":
            nodes.forget(known.id, known.nlookup)
        elif known is not None and step == "detach":
            nodes.detach(known)
        elif known is not None and step == "rename":
            nodes.unname(nodes.root, name)
            nodes.name(known, nodes.root, b"n%d" % (ino % 5), Kind.OTHER)
        for node in nodes:
            assert nodes[node.id] is node
            for parent, each in node.names:
                assert nodes.entry(parent, each) is node
        for parent_id, each in nodes.entries():
            found = nodes.entry(nodes[parent_id], each)
            assert found is not None and (nodes[parent_id], each) in found.names
            assert nodes.get(found.id) is found
