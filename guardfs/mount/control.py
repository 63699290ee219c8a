"""What an operator tells a running guard: small JSON, set as the extended attribute `user.guardfs.control` of the
mount's root by root or the guard's own user, and answered by the same attribute.

    {"do": "mode", "mode": "off"}      -> {"mode": "off", "before": "enforce", "left": []}
    {"do": "flush", "transcript": ""}  -> {"left": [...]}
    {"do": "upgrade", "format": 1}     -> {"pid": 4100, "version": "0.1.0"}

The kernel sends both as it would for any attribute, so there is no socket to find, to guard and to clean away.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from typing import Any, Protocol

import msgspec

from guardfs import __version__
from guardfs.lanes.writer import Writer
from guardfs.mount.memory.store import FORMAT
from guardfs.mount.reload import Command, PolicyKeeper, SetBy
from guardfs.mount.views import Views

_ANSWERS = 16
"""Processes whose last answer is kept; each is asked for at once."""

_MAX_LEFT = 100
"""Branches that an answer names; an attribute holds 64 KiB."""


class SetMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="mode"):
    """Another mode; `policy`: the one that policy and options say."""

    mode: Command


class Flush(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="flush"):
    """Rebase what can be. transcript: below the mount, raw bytes, in base64; empty: all of them."""

    transcript: bytes = b""


class Upgrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="upgrade"):
    """Another daemon is to take over, of what is installed now. format: of the memory that it would read
    (`guardfs.mount.memory.store.FORMAT`)."""

    format: int


_REQUEST = msgspec.json.Decoder(SetMode | Flush | Upgrade)


class Upgrader(Protocol):
    """How another daemon is had."""

    def possible(self) -> bool:
        """Whether one could take over."""

    def ask(self) -> None:
        """Ask for one."""


class Control:
    """Answers requests, on the loop. ids: the users that may ask. upgrade: gets another daemon."""

    def __init__(self, policy: PolicyKeeper, views: Views, ids: frozenset[int], upgrade: Upgrader) -> None:
        self._policy = policy
        self._upgrade = upgrade
        self._leaves = -1  # the process that has asked for another daemon, until it has its answer
        self._views = views
        self._ids = ids
        self._answers: OrderedDict[int, bytes] = OrderedDict()

    def ask(self, writer: Writer, value: bytes) -> None:
        """Do what *value* says. OSError: EPERM for another user, EINVAL for what is no request."""
        self._check(writer)
        try:
            request = _REQUEST.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
        if isinstance(request, SetMode):
            answer = self._set_mode(request, writer)
        elif isinstance(request, Upgrade):
            answer = self._hand_over(request, writer)
        else:
            answer = self._flush(request)
        self._answers.pop(_process(writer), None)
        self._answers[_process(writer)] = msgspec.json.encode(answer)
        if len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)

    def answer(self, writer: Writer) -> bytes:
        """The answer to the last request of *writer*'s process. OSError: ENODATA if there is none."""
        self._check(writer)
        found = self._answers.get(_process(writer))
        if found is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        if self._leaves == _process(writer):  # the next daemon would not know the answer
            self._leaves = -1
            self._upgrade.ask()
        return found

    def _check(self, writer: Writer) -> None:
        if writer.uid not in self._ids:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def _set_mode(self, request: SetMode, writer: Writer) -> dict[str, Any]:
        before = self._policy.mode
        self._policy.set_mode(request.mode, SetBy(writer.uid, _process(writer), writer.comm))
        self._views.everything_due()
        return {"mode": self._policy.mode, "before": before, **self._left(b"")}

    def _hand_over(self, request: Upgrade, writer: Writer) -> dict[str, Any]:
        facts = {"pid": os.getpid(), "version": __version__}
        if request.format != FORMAT:
            return {
                **facts,
                "error": f"the one that is installed cannot read what guardfs {__version__} leaves",
            }
        if not self._upgrade.possible():
            return {**facts, "error": "it has no supervisor, or the kernel sends nothing again"}
        self._leaves = _process(writer)
        return facts

    def _flush(self, request: Flush) -> dict[str, Any]:
        if request.transcript:
            self._views.due(request.transcript)
        else:
            self._views.everything_due()
        return self._left(request.transcript)

    def _left(self, transcript: bytes) -> dict[str, Any]:
        """What waits still, and for whom."""
        left = self._views.waiting(transcript)
        return {"left": left[:_MAX_LEFT], "total": len(left)}


def _process(writer: Writer) -> int:
    """0 for callers outside the guard's pid namespace."""
    return writer.tgid
