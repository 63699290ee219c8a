"""What the files of the journal say, and how they are read. Plain data; `branches` tells what the files are."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from guardfs.errors import GuardError

FORMAT = 1
"""Of the files. A newer one is refused."""


class BranchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a branch is. transcript: its path below the mount, raw bytes. lane, key, process: whose it is. base: bytes
    of the file that it stands on. exists: that file existed. whole: the branch holds all of the file. replaces: another
    file is to take the name. inode, device: of the file that it stands on, 0 if none. mode, uid, gid: of the file to be
    made, where there was none, or another takes its name. made: its lane sees a file, be it an empty one. opened: ns
    since the epoch. follows: the branch or ghost whose place it took. before: the last bytes below *base*, as they
    were; empty where they are not known."""

    format: int = FORMAT
    number: int
    transcript: bytes
    lane: str
    key: str = "lane"
    process: tuple[int, int] = (0, 0)
    base: int = 0
    exists: bool = True
    whole: bool = False
    replaces: bool = False
    made: bool = True
    inode: int = 0
    device: int = 0
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    opened: int = 0
    follows: int = 0
    before: bytes = b""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A rebase that has begun. size: of the transcript before it, bytes; inode, device: which file that was, 0 where
    there was none. added: bytes of `.out`. replaces: the transcript becomes the branch's data and then `.out`; else
    `.out` is appended. mtime: what the file's modification time becomes, ns. temporary: name of the file that takes the
    place of *name*, which is the transcript's or, of a conflict, one of its own."""

    format: int = FORMAT
    size: int
    inode: int = 0
    device: int = 0
    added: int = 0
    replaces: bool = False
    mtime: int = 0
    temporary: bytes = b""
    name: bytes = b""


class GhostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file that lost its name to another lane while its owner relies on it. transcript: that name; name: the one that
    it has now; both below the mount. size: at that moment, bytes: what is behind it was written by the owner since.
    removed: it was removed: it goes when nothing was written since. anew: another file was made under that name while
    the owner still relied on this one, so what that wrote belongs there, too."""

    format: int = FORMAT
    transcript: bytes
    name: bytes
    inode: int
    device: int
    size: int
    removed: bool
    anew: bool = False
    lane: str = ""


Facts = TypeVar("Facts", BranchFacts, Intent, GhostFacts)


def decode(data: bytes, kind: type[Facts], path: str) -> Facts:
    try:
        found = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise GuardError(
            f"{path}: not what guardfs wrote: {error}", "move the directory away to keep it, and start again"
        ) from None
    if found.format > FORMAT:
        raise GuardError(
            f"{path}: of format {found.format}, this guardfs knows {FORMAT}",
            "use the guardfs that wrote it, or newer",
        )
    return found
