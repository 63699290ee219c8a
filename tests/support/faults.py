"""System calls of the guard that fail when they are told to, in this process or in a daemon's.

`Faults.install` puts itself between the modules of guardfs that work on the disk and the operating system: whatever
they call is counted by name (``branches.pwrite``: the call pwrite of the module `guardfs.state.branches`; ``below.``:
by way of `Backing`), and the call that a `Fault` names fails. The rest of the process, the test, sees no faults.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from guardfs.fence.staging import Branch, Staging
from guardfs.mount.backing import Backing
from guardfs.mount.filesystem import FileSystem
from guardfs.mount.merging import Merger
from guardfs.mount.nodes import NodeTable
from guardfs.mount.views import Views
from guardfs.policy.judge import Judge
from guardfs.state.branches import BranchFile, BranchStore

CALLS = frozenset(
    "open close fstat stat pread preadv pwrite ftruncate truncate fsync fdatasync rename rename_with_flags unlink link "
    "symlink mknod mkdir rmdir makedirs utime utimens chmod chown fchmod fchown dup dup2 setxattr getxattr listxattr "
    "removexattr readlink statvfs listdir scandir".split()
)
"""What can fail. Everything else of `os` is left alone."""

MODULES = (
    "state.branches",
    "mount.descriptors",
    "mount.merging",
    "mount.recovery",
    "mount.nodes",
    "mount.operations.attributes",
    "mount.operations.branching",
    "mount.operations.core",
    "mount.operations.enforced",
    "mount.operations.enforcing",
    "mount.operations.files",
    "mount.operations.haunting",
    "mount.operations.listing",
    "mount.operations.names",
    "mount.views.branching",
    "mount.views.haunting",
    "mount.views.live",
    "mount.views.looking",
    "mount.views.rebasing",
    "mount.views.views",
)
"""Of guardfs: all that touch the directory below or the journal."""

SHORT = 0
"""In the place of an errno: half of what was asked for is read or written, and no error."""

BUG = -1
"""Likewise: an error of the guard's own, which is no OSError."""

METHODS = {
    "judge": (Judge, "rule standing actor lane judge"),
    "staging": (Staging, "view target keep ready"),
    "branch": (Branch, "wrote replaced touched"),
    "views": (Views, "staged look branch write truncate replace node haunt haunted _pin _due _rebase _done"),
    "file": (BranchFile, "write truncate read"),
    "store": (BranchStore, "create drop begin forget haunt rest"),
    "merger": (Merger, "merge onto append"),
    "nodes": (NodeTable, "remember alias name unname"),
    "core": (FileSystem, "state"),
}
"""Of the guard itself, where an error of its own is tried, before and after they act: ``judge.rule.before``."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


class InjectedError(RuntimeError):
    """What a `BUG` raises."""


class Fault(NamedTuple):
    """The *nth* (from 1) call named *call* fails with *number*, or is cut short. lasting: and all after it."""

    call: str
    nth: int
    number: int
    lasting: bool = False

    def __str__(self) -> str:
        what = {SHORT: "short", BUG: "bug"}.get(self.number) or errno.errorcode[self.number]
        return f"{self.call} {self.nth} {what}{' and all after it' if self.lasting else ''}"


def parse(text: str) -> Fault | None:
    """A fault as a daemon's file says it: ``CALL NTH ERRNO [lasting]``; None for an empty one."""
    words = text.split()
    if not words:
        return None
    special = {"short": SHORT, "bug": BUG}
    number = special[words[2]] if words[2] in special else int(getattr(errno, words[2]))
    return Fault(words[0], int(words[1]), number, "lasting" in words[3:])


class Faults:
    """Counts calls while *on*, and makes the chosen one fail. counts: by name. hits: how many were made to fail."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.fault: Fault | None = None
        self.hits = 0
        self._matched = 0
        self.on = False
        self.seen: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None

    def arm(self, fault: Fault | None) -> None:
        """From now on calls are counted from one, and *fault* is in force."""
        self.counts.clear()
        self.fault, self.hits, self._matched, self.on = fault, 0, 0, True

    def disarm(self) -> None:
        """No more faults."""
        self.on = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What the block does is the test's own doing."""
        on, self.on = self.on, False
        try:
            yield
        finally:
            self.on = on

    def call(self, module: str, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """*real*, which fails when its time has come."""
        full = f"{module}.{name}"

        def call(*args: Any, **more: Any) -> Any:
            fault = self._due(full, args)
            if fault is None:
                return real(*args, **more)
            if fault.number == SHORT:
                return _short(name, real, args, more)
            if fault.number == BUG:
                raise InjectedError(full)
            if name == "close":  # the descriptor is gone all the same (close(2))
                real(*args, **more)
            raise OSError(fault.number, os.strerror(fault.number))

        return call

    def _due(self, full: str, args: tuple[Any, ...]) -> Fault | None:
        """The fault, if this call is one that it means."""
        if not self.on:
            return None
        self.counts[full] += 1
        self.seen(full, args)
        fault = self.fault
        if fault is None or not _meant(fault.call, full):
            return None
        self._matched += 1
        if self._matched != fault.nth and not (fault.lasting and self._matched > fault.nth):
            return None
        self.hits += 1
        return fault

    def method(self, full: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The method *real*, which fails before or after it acts."""

        def method(*args: Any, **more: Any) -> Any:
            if self._due(f"{full}.before", args) is not None:
                raise InjectedError(f"before {full}")
            result = real(*args, **more)
            if self._due(f"{full}.after", args) is not None:
                raise InjectedError(f"after {full}")
            return result

        return method

    @contextmanager
    def installed(self) -> Iterator[None]:
        """For as long as the block runs, guardfs's calls come by here."""
        undo: list[Callable[[], None]] = []
        try:
            for name in MODULES:
                module = importlib.import_module(f"guardfs.{name}")
                undo.append(_put(module, "os", _Os(self, name.rpartition(".")[2])))
            branches = importlib.import_module("guardfs.state.branches")
            undo.append(_put(branches, "open", self.call("branches", "open", builtins.open)))
            for name in CALLS & vars(Backing).keys():
                faulty = self.call("below", name, getattr(Backing, name))
                undo.append(_put(Backing, name, staticmethod(faulty)))
            for name, (owner, methods) in METHODS.items():
                for method in methods.split():
                    faulty = self.method(f"{name}.{method}", getattr(owner, method))
                    undo.append(_put(owner, method, faulty))
            yield
        finally:
            self.disarm()
            for each in reversed(undo):
                each()


class _Os:
    """`os`, as one module of guardfs sees it."""

    def __init__(self, faults: Faults, module: str) -> None:
        self._faults = faults
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name in CALLS:
            found = self._faults.call(self._module, name, found)
        setattr(self, name, found)
        return found


_MISSING = object()


def _put(owner: Any, name: str, value: Any) -> Callable[[], None]:
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    if before is _MISSING:
        return lambda: delattr(owner, name)
    return lambda: setattr(owner, name, before)


def _meant(wanted: str, name: str) -> bool:
    return wanted == name or (wanted.endswith(".*") and name.startswith(wanted[:-1]))


def _short(name: str, real: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
    if name == "pwrite" and len(args[1]) > 1:
        return real(args[0], args[1][: len(args[1]) // 2], *args[2:], **more)
    if name == "pread" and args[1] > 1:
        return real(args[0], args[1] // 2, *args[2:], **more)
    return real(*args, **more)
