"""Who holds which lock."""

from __future__ import annotations

import pytest

from guardfs.fence.lockfile import LockHolder
from guardfs.fence.locks import LockTable

A, B = b"a.jsonl", b"sub/b.jsonl"


def test_a_lock_is_its_creators_own_and_everybody_elses_other() -> None:
    table = LockTable()
    assert table.relation(A, 10, 500) == "free"
    table.created(A, 10, 500)
    assert table.relation(A, 10, 500) == "own"
    assert table.relation(A, 11, 500) == "other"
    assert table.relation(B, 10, 500) == "free"
    table.removed(A)
    assert table.relation(A, 10, 500) == "free"
    table.removed(A)


def test_a_later_process_with_the_same_id_is_another() -> None:
    table = LockTable()
    table.created(A, 10, 500)
    assert table.relation(A, 10, 900) == "other"


def test_a_process_that_cannot_be_seen_never_owns_a_lock() -> None:
    table = LockTable()
    table.created(A, 0, 0)
    assert table.relation(A, 0, 0) == "other"
    assert table.relation(A, 10, 500) == "other"
    table.created(B, 10, 500)
    assert table.relation(B, 0, 0) == "other"


def test_who_creates_a_lock_anew_holds_it() -> None:
    table = LockTable()
    table.created(A, 10, 500)
    table.created(A, 11, 600)
    assert (table.relation(A, 10, 500), table.relation(A, 11, 600)) == ("other", "own")


def test_a_renamed_lock_keeps_its_holder() -> None:
    table = LockTable()
    table.created(A, 10, 500)
    table.created(B, 11, 600)
    table.renamed(A, B)
    assert table.relation(A, 10, 500) == "free"
    assert table.relation(B, 10, 500) == "own"
    table.renamed(b"unknown", B)  # one that was never seen created: nobody knows whose it is
    assert table.relation(B, 10, 500) == "free"
    table.created(A, 10, 500)
    table.renamed(A, A)
    assert table.relation(A, 10, 500) == "own"


@pytest.mark.parametrize(
    ("holder", "relation"),
    [
        (LockHolder(10, 500), "own"),
        (LockHolder(10, 501), "other"),
        (LockHolder(10, None), "own"),
        (LockHolder(11, 500), "other"),
        (LockHolder(None, None), "other"),
        (LockHolder(None, 500), "other"),
    ],
)
def test_of_a_lock_from_before_the_mount_the_file_is_believed(holder: LockHolder, relation: str) -> None:
    table = LockTable()
    table.seed(A, holder)
    assert table.relation(A, 10, 500) == relation
    assert table.relation(A, 0, 0) == "other"


def test_what_the_mount_saw_comes_before_what_a_file_says() -> None:
    table = LockTable()
    table.created(A, 10, 500)
    table.seed(A, LockHolder(11, 600))
    assert table.relation(A, 10, 500) == "own"


def test_the_oldest_lock_is_forgotten_first() -> None:
    table = LockTable(limit=3)
    for number in range(5):
        table.created(b"%d" % number, 10, 500)
        table.created(b"0", 10, 500)  # held again and again: never the oldest
    assert len(table) == 3
    assert [table.relation(b"%d" % number, 10, 500) for number in range(5)] == [
        "own",
        "free",
        "free",
        "own",
        "own",
    ]
