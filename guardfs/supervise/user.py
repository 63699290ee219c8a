"""The user that `guardfs run --user` runs the command as."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping

import msgspec

from guardfs.errors import GuardError
from guardfs.mount import capabilities

_NEEDED = {"CAP_SETUID": 7, "CAP_SETGID": 6, "CAP_KILL": capabilities.KILL}
"""To become another user in the child, and to signal it afterwards."""

_LIMIT = 1 << 32


class User(msgspec.Struct, frozen=True):
    """name: None for a number without an entry in the user database. groups: supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str | None
    home: str

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """*inherited*, with HOME, USER and LOGNAME of this user."""
        found = {**inherited, "HOME": self.home}
        for name in ("USER", "LOGNAME"):
            if self.name is not None:
                found[name] = self.name
            else:
                found.pop(name, None)
        return found

    def become(self) -> None:
        """Turn this process into the user's, for good: groups, group, user, and no capability for anybody but root.
        OSError where that is not allowed."""
        if self.uid != 0:
            capabilities.bound([])
        if os.geteuid() == 0:
            os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        if self.uid != 0:
            capabilities.keep([])  # what is inheritable survives setresuid


def parse(text: str) -> User:
    """The user that ``NAME|UID[:GROUP|GID]`` names. With a group, that is the only one. Raises GuardError."""
    who, colon, group = text.partition(":")
    entry = _entry(who, text)
    if entry is not None:
        uid, gid, name, home = entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir or "/"
        groups = tuple(os.getgrouplist(name, gid))
    else:
        uid, gid, name, home, groups = int(who), int(who), None, "/", ()
    if colon:
        gid, groups = _group(group, text), ()
    user = User(uid, gid, groups or (gid,), name, home)
    _allowed(user, text)
    return user


def _entry(who: str, text: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(who)) if who.isascii() and who.isdigit() else pwd.getpwnam(who)
    except (KeyError, OverflowError):
        if who.isascii() and who.isdigit() and int(who) < _LIMIT - 1:
            return None
        raise GuardError(f"--user {text}: no user {who!r}", "name one of /etc/passwd, or a number") from None


def _group(group: str, text: str) -> int:
    if group.isascii() and group.isdigit() and int(group) < _LIMIT - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise GuardError(
            f"--user {text}: no group {group!r}", "name one of /etc/group, or a number"
        ) from None


def _allowed(user: User, text: str) -> None:
    if user.uid == os.geteuid() != 0:
        if user.gid == os.getegid():
            return
        raise GuardError(f"--user {text}: another group than yours", "leave the group out, or run as root")
    if os.geteuid() != 0:
        raise GuardError(f"--user {text}: only root can run a command as another user", "run guardfs as root")
    effective = capabilities.current("Eff")
    missing = [name for name, bit in _NEEDED.items() if user.uid != 0 and not effective >> bit & 1]
    if missing:
        raise GuardError(
            f"--user {text}: needs {', '.join(missing)}",
            "in a container, add " + " ".join(f"`--cap-add {name[4:]}`" for name in missing),
        )
