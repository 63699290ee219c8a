"""How long the kernel may answer from memory, in seconds. Pure.

The fastest answer is the one that nobody asks for: what is no transcript is cached until the guard itself, or the
watch on the directory below, says that it has changed. Of transcripts every look by name must be seen. Of a lock file
that is there none need be: who takes it creates it, who asks whose it is opens it, who gives it back removes it. That
there is none must be asked each time: so somebody shows who has lost it (`guardfs.fence.machine`). One that was made
below the mount is asked about each time: its maker may be about to write into it.
"""

from __future__ import annotations

import msgspec

from guardfs.audit.event import Kind

WATCHED = 86400.0
UNWATCHED = 1.0
"""Where changes by others are not announced (network file systems, or no inotify): what bindfs and NFS
clients allow themselves.
"""

GLANCE = 0.001
"""Attributes of transcripts and locks, from one LOOKUP to the GETATTR of the same stat(2). The kernel rounds
it up to a tick of its clock.
"""

REMOTE = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "ocfs2",
        "gfs2",
        "virtiofs",
    }
)

MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems whose reads never wait for a device."""


class Timeouts(msgspec.Struct, frozen=True):
    """entry: how long a name is believed; attributes: how long its attributes are; absent: how long a name
    is believed not to exist.
    """

    entry: float
    attributes: float
    absent: float


OTHER = Timeouts(entry=WATCHED, attributes=WATCHED, absent=WATCHED)
SHARED = Timeouts(entry=WATCHED, attributes=UNWATCHED, absent=WATCHED)
"""A file with further links: it can be changed under a name that no watch covers."""

UNANNOUNCED = Timeouts(entry=UNWATCHED, attributes=UNWATCHED, absent=UNWATCHED)
LOOKED_AT = Timeouts(entry=0.0, attributes=GLANCE, absent=0.0)
LOCK = Timeouts(entry=WATCHED, attributes=WATCHED, absent=0.0)


def is_remote(fstype: str) -> bool:
    """Whether changes by other hosts can happen without an inotify event."""
    return fstype in REMOTE or fstype.startswith("fuse")


def timeouts(
    kind: Kind, *, watched: bool, links: int = 1, made: bool = False, every_look: bool = False
) -> Timeouts:
    """How long to believe a name and its file. watched: changes in its directory are announced; links: st_nlink, 1 for
    a directory; made: it was created through the mount; every_look: the log is to have each look at a lock file."""
    if kind is Kind.LOCK and watched and made and links == 1 and not every_look:
        return LOCK
    if kind is not Kind.OTHER:
        return LOOKED_AT
    if not watched:
        return UNANNOUNCED
    return OTHER if links <= 1 else SHARED
