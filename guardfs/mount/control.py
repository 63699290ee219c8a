"""What an operator tells a running guard: small JSON, set as the extended attribute `user.guardfs.control` of the
mount's root by root or the guard's own user, and answered by the same attribute.

    {"do": "mode", "mode": "off"}      -> {"mode": "off", "before": "enforce", "left": []}
    {"do": "flush", "transcript": ""}  -> {"left": [...]}

The kernel sends both as it would for any attribute, so there is no socket to find, to guard and to clean away.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from typing import Any

import msgspec

from guardfs.lanes.writer import Writer
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


_REQUEST = msgspec.json.Decoder(SetMode | Flush)


class Control:
    """Answers requests, on the loop. ids: the users that may ask."""

    def __init__(self, policy: PolicyKeeper, views: Views, ids: frozenset[int]) -> None:
        self._policy = policy
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
        answer = self._set_mode(request, writer) if isinstance(request, SetMode) else self._flush(request)
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
        return found

    def _check(self, writer: Writer) -> None:
        if writer.uid not in self._ids:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def _set_mode(self, request: SetMode, writer: Writer) -> dict[str, Any]:
        before = self._policy.mode
        self._policy.set_mode(request.mode, SetBy(writer.uid, _process(writer), writer.comm))
        self._views.everything_due()
        return {"mode": self._policy.mode, "before": before, **self._left(b"")}

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
