"""Timeouts by kind of file."""

from __future__ import annotations

from typing import Any

import pytest

from guardfs.audit.event import Kind
from guardfs.mount.caching import is_remote, timeouts


@pytest.mark.parametrize("watched", [True, False])
def test_names_of_transcripts_are_never_remembered(watched: bool) -> None:
    found = timeouts(Kind.TRANSCRIPT, watched=watched)
    assert (found.entry, found.absent) == (0.0, 0.0)
    assert found.attributes < 0.01


def test_a_lock_file_that_is_there_is_remembered_and_that_there_is_none_never() -> None:
    found = timeouts(Kind.LOCK, watched=True, made=True)
    assert min(found.entry, found.attributes) > 3600
    assert found.absent == 0.0


@pytest.mark.parametrize("but", [{"watched": False}, {"links": 2}, {"made": False}, {"every_look": True}])
def test_lock_files_are_asked_about_where_changes_or_looks_would_be_missed(but: dict[str, Any]) -> None:
    found = timeouts(Kind.LOCK, **{"watched": True, "made": True, **but})
    assert (found.entry, found.absent) == (0.0, 0.0)
    assert found.attributes < 0.01


def test_others_are_remembered_for_long_only_where_changes_are_announced() -> None:
    assert timeouts(Kind.OTHER, watched=True).entry > 3600
    found = timeouts(Kind.OTHER, watched=False)
    assert max(found.entry, found.attributes, found.absent) <= 1.0


def test_a_file_with_further_links_is_asked_about_again_for_one_may_lie_elsewhere() -> None:
    assert timeouts(Kind.OTHER, watched=True, links=2).attributes <= 1.0


@pytest.mark.parametrize(
    ("fstype", "remote"),
    [("ext4", False), ("xfs", False), ("btrfs", False), ("tmpfs", False), ("overlay", False), ("nfs4", True),
     ("cifs", True), ("9p", True), ("virtiofs", True), ("fuse.sshfs", True), ("fuse", True), ("fuseblk", True)],
)  # fmt: skip
def test_remote_file_systems(fstype: str, remote: bool) -> None:
    assert is_remote(fstype) is remote
