"""What a directory looks like: all that must survive a mount and an unmount."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One name in a directory. digest: SHA-256 of a file's bytes or of a link's target; empty for nothing."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    digest: str


def snapshot(directory: Path) -> dict[str, Entry]:
    """Everything below *directory*, itself included as ``.``, that must survive a mount and an unmount."""
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        info = path.lstat()
        content = b""
        if stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(info.st_mode):
            content = os.fsencode(os.readlink(path))
        found[str(path.relative_to(directory))] = Entry(
            mode=info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            size=0
            if stat.S_ISDIR(info.st_mode)
            else info.st_size,  # a directory's is the file system's affair
            mtime_ns=info.st_mtime_ns,
            links=info.st_nlink,
            digest=hashlib.sha256(content).hexdigest() if content else "",
        )
    return found
