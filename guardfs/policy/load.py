"""From a file, or a shipped policy's name, to a policy, or to all that is wrong with it.

The file is opened once, and judged by that descriptor: what was looked at is what is read. Nothing is expanded: no
environment variable, no ``~``.
"""

from __future__ import annotations

import difflib
import errno
import grp
import hashlib
import os
import pwd
import re
import stat
from typing import Literal

import msgspec

from guardfs.policy.examine import examine
from guardfs.policy.model import Policy
from guardfs.policy.problem import PolicyError, Problem, quoted
from guardfs.policy.read import MAX_BYTES, Places

__all__ = ["Loaded", "PolicyError", "Problem", "Source", "load", "locate", "open_policy", "shipped"]


class Source(msgspec.Struct, frozen=True, eq=False):
    """Where a policy comes from. name: as errors say it. path: what is opened."""

    name: str
    path: str
    shipped: bool


class Read(msgspec.Struct, frozen=True, eq=False):
    """What a policy file held when it was read, and what is wrong with the file itself."""

    source: Source
    data: bytes
    digest: str
    distrust: tuple[Problem, ...]

    def distrust_as_warnings(self) -> tuple[Problem, ...]:
        """For those who only look."""
        return tuple(msgspec.structs.replace(problem, severity="warning") for problem in self.distrust)


class Loaded(msgspec.Struct, frozen=True, eq=False):
    """A policy that can be used.

    source: the file as errors name it. path: the file that was opened, absolute. digest: SHA-256 of its bytes, in hex.
    places: line and column of every key. warnings: what is allowed, and probably not meant.
    """

    policy: Policy
    source: str
    path: str
    digest: str
    places: Places
    warnings: tuple[Problem, ...]
    shipped: bool


def load(name_or_path: str, *, trust: bool = True) -> Loaded:
    """The policy in a file, or a shipped one by its name (no "/" and no ".toml" in it).

    trust: refuse a file that others than root and this process's user can have written; without it, that is a warning.
    PolicyError with every problem, if it cannot be used.
    """
    read = open_policy(locate(name_or_path))
    source = read.source
    if trust and read.distrust:
        raise PolicyError(source.name, read.distrust, kind="untrusted", digest=read.digest)
    found = examine(read.data, known=known)
    warned = read.distrust_as_warnings()
    if found.policy is None:
        raise PolicyError(source.name, (*warned, *found.problems), digest=read.digest)
    return Loaded(
        policy=found.policy,
        source=source.name,
        path=source.path,
        digest=read.digest,
        places=found.places,
        warnings=(*warned, *found.problems),
        shipped=source.shipped,
    )


def locate(name_or_path: str) -> Source:
    """The file that is meant. PolicyError if a name without "/" and ".toml" is no shipped policy's."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Source(name_or_path, os.path.abspath(name_or_path), shipped=False)
    there = _shipped_files()
    if name_or_path in there:
        return Source(name_or_path, there[name_or_path], shipped=True)
    near = difflib.get_close_matches(name_or_path, there, 1)
    if near:
        mend = f"did you mean {quoted(near[0])}?"
    elif os.path.exists(name_or_path):
        mend = f"if the file here is meant, write ./{name_or_path}"
    else:
        mend = "a file is named with a '/' or by '.toml'"
    raise PolicyError(
        name_or_path or "''",
        [
            Problem(
                None, None, "", f"no policy of this name is shipped ({', '.join(there) or 'none is'})", mend
            )
        ],
        kind="unreadable",
    )


def open_policy(source: Source) -> Read:
    """Read the file, and see who can write to it. PolicyError if it cannot be read.

    The files that ship are as trusted as the program beside which they lie, whoever owns them.
    """

    def refuse(what: str, mend: str = "") -> PolicyError:
        return PolicyError(source.name, [Problem(None, None, "", what, mend)], kind="unreadable")

    try:
        # O_NONBLOCK: to open a pipe must not wait for a writer
        descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:
        raise refuse("no file can have this name") from None
    except OSError as error:
        raise refuse(_reason(error), _mend_open(error, source.path)) from None
    try:
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            raise refuse("is a directory", "name the file in it")
        if not stat.S_ISREG(about.st_mode):
            raise refuse(
                "is no regular file", "a policy is read again whenever it changes; write it to a file"
            )
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refuse(_reason(error)) from None
    finally:
        os.close(descriptor)
    distrust = () if source.shipped else _distrust(about, source.path)
    return Read(source, data, hashlib.sha256(data).hexdigest(), distrust)


def known(kind: Literal["user", "group"], name: str) -> bool:
    """Whether this machine knows a user or group of this name."""
    try:
        if kind == "user":
            pwd.getpwnam(name)
        else:
            grp.getgrnam(name)
    except (KeyError, ValueError):
        return False
    except OSError:  # the directory service is away: nothing can be said
        return True
    return True


def shipped() -> list[tuple[str, str]]:
    """Name and description of every policy that ships, by name."""
    listed = []
    for name, path in _shipped_files().items():
        found = examine(open_policy(Source(name, path, shipped=True)).data)
        listed.append((name, found.policy.description if found.policy else ""))
    return listed


def _shipped_files() -> dict[str, str]:
    """Where the shipped policies are: beside the modules where a wheel put them, or in the repository."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for directory in (os.path.join(package, "policies"), os.path.join(os.path.dirname(package), "policy")):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        found = {name[:-5]: os.path.join(directory, name) for name in sorted(names) if _is_policy(name)}
        if found:
            return found
    return {}


def _is_policy(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9-]*\.toml", name) is not None


def _distrust(about: os.stat_result, path: str) -> tuple[Problem, ...]:
    me = os.geteuid()
    problems = []
    if about.st_uid not in (0, me):
        owners = "root" if me == 0 else f"root or {_user(me)}"
        problems.append(
            Problem(
                None,
                None,
                "",
                f"belongs to {_user(about.st_uid)}, who could change what the guard does",
                f"only {owners} may own it: chown {'root' if me == 0 else _user(me)} {path}",
            )
        )
    loose = [
        who
        for bit, who in ((stat.S_IWGRP, f"group {_group(about.st_gid)}"), (stat.S_IWOTH, "everybody"))
        if about.st_mode & bit
    ]
    if loose:
        mode = stat.S_IMODE(about.st_mode)
        problems.append(
            Problem(
                None,
                None,
                "",
                f"can be written by {' and '.join(loose)} (mode {mode:04o})",
                f"chmod go-w {path}",
            )
        )
    return tuple(problems)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OSError):
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OSError):
        return str(number)


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]


def _mend_open(error: OSError, path: str) -> str:
    if error.errno == errno.ENOENT:
        if path.endswith(".toml") and os.path.basename(path)[:-5] in _shipped_files():
            return f"the shipped policy of this name is called {quoted(os.path.basename(path)[:-5])}"
        try:
            near = difflib.get_close_matches(os.path.basename(path), os.listdir(os.path.dirname(path)), 1)
        except OSError:
            return f"{os.path.dirname(path)} is not there either"
        return f"did you mean {quoted(near[0])}?" if near else ""
    if error.errno == errno.EACCES:
        return f"let {_user(os.geteuid())} read it"
    return ""
