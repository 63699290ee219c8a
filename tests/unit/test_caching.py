"""Timeouts by kind of file."""

from __future__ import annotations

import pytest

from guardfs.audit.event import Kind
from guardfs.mount.caching import is_remote, timeouts


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("kind", [Kind.TRANSCRIPT, Kind.LOCK])
def test_names_of_transcripts_and_locks_are_never_remembered(watched: bool, kind: Kind) -> None:
    found = timeouts(kind, watched=watched)
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
