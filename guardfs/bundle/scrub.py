"""Takes out of facts what is nobody else's business, before they are written anywhere. Pure.

What is known to be safe is not listed; what looks like a secret is masked wherever it stands (`guardfs.audit.redact`),
and so is every value that the environment of the guard's processes keeps under a telling name. Session keys, users and
groups become hashes with a key that is thrown away: equal ones stay equal within one bundle.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from guardfs.audit.redact import MASK, Identities, looks_random, mask, mask_args

_LEFT_OUT = frozenset({"text", "environ", "environment", "env"})
"""Keys whose values are never anybody's business: pieces of a torn line, variables."""

_HASHES = frozenset({"prev", "hash", "digest", "sha256", "new", "old", "before"})
"""Keys of hashes, which read like keys."""

_HASH = re.compile(r"[0-9a-f]{64}")
_HASHED = re.compile(r"h:[0-9a-f]{16}")
_HOME = re.compile(r"(?<![\w.-])/home/([^/\s\"':,;]+)")
_TELLING = re.compile(r"token|secret|passw|passphrase|pwd|key|auth|credential|cookie|bearer", re.I)
_SHORTEST = 8
"""Characters of a value of the environment that is looked for: shorter ones are words that stand everywhere."""


class Scrubber:
    """environments: those of the processes that the facts are about."""

    def __init__(self, environments: Iterable[Mapping[str, str]] = ()) -> None:
        self._ids = Identities(secrets.token_bytes(32))
        values = {value for each in environments for name, value in each.items() if _secret(name, value)}
        # longest first: one may be the beginning of another
        self._known = sorted(values, key=len, reverse=True)

    def text(self, text: str) -> str:
        """A line, or a few, as they may be shown to strangers."""
        for value in self._known:
            text = text.replace(value, MASK)
        text = mask(text, self._ids)
        return _HOME.sub(lambda match: f"/home/{self._ids.hash(match[1])}", text)

    def args(self, args: Iterable[str]) -> list[str]:
        """The arguments of a process."""
        return [self.text(arg) for arg in mask_args(args, self._ids)]

    def value(self, value: Any, key: str = "") -> Any:
        """The same of anything that JSON can say; *key*: what it is called."""
        if isinstance(value, dict):
            return {
                self.text(str(name)): self.value(item, str(name))
                for name, item in value.items()
                if str(name).lower() not in _LEFT_OUT
            }
        if isinstance(value, list | tuple):
            if key == "args" and all(isinstance(item, str) for item in value):
                return self.args(value)
            return [self.value(item, key) for item in value]
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and key in ("uid", "gid"):
            return self._ids.number(value, key)
        if not isinstance(value, str):
            return value
        if key in _HASHES and _HASH.fullmatch(value):
            return value
        if key == "session" and not _HASHED.fullmatch(value):
            return self._ids.hash(value)
        return self.text(value)


def _secret(name: str, value: str) -> bool:
    if len(value) < _SHORTEST or value.startswith("/"):  # a path is no secret
        return False
    return _TELLING.search(name) is not None or looks_random(value)
