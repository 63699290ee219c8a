"""Keeps secrets and, on request, identities out of the log. Pure.

Arguments of processes hold tokens and keys; a value that looks like one is replaced by `MASK`. The rules err
on the side of masking: a masked branch name costs a look at `ps`, a logged token costs a rotation of keys.
They are a net, not a proof: a secret that looks like an ordinary word and stands behind no telling name is
not seen.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from itertools import pairwise

MASK = "***"

MAX_ARGS = 100
MAX_ARG = 1000
"""Characters of one argument, and number of arguments, that are logged: a shell script given with -c can be
128 kB long."""

_NAME = (
    r"(?:token|secret|passw(?:or)?d|passphrase|pwd|api[_-]?key|apikey|access[_-]?key|private[_-]?key"
    r"|auth(?!or)|credential|bearer)"
)
_OPTION = re.compile(rf"--?[\w.-]*(?:{_NAME}|[_-]key$|^--?key$)[\w.-]*", re.I)
_NOT_A_VALUE = re.compile(r"(?:file|path|dir|url|type|name|id|env|profile)s?$", re.I)
_ASSIGNED = re.compile(
    rf"""([\w.-]*(?:{_NAME}|[_-]key\b|\bkey\b)[\w.-]*["']?\s*[=:]\s*)"""
    r"""("[^"]*"|'[^']*'|(?:bearer|basic|token)\s+\S+|[^\s"',;&}]+)""",
    re.I,
)
_OPTION_IN_TEXT = re.compile(rf"(--?[\w.-]*{_NAME}[\w.-]*\s+)(?!-)(\S+)", re.I)
_SCHEME = re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}", re.I)
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@", re.I)
_URL_TOKEN = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s:@]{16,}@", re.I)
_KNOWN = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{8,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{8,}|\bgithub_pat_\w{8,}|\bglpat-[\w-]{8,}"
    r"|\bxox[a-z]-[\w-]{6,}|\bxapp-[\w-]{6,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{8,}|\bAIza[\w-]{16,}|\bya29\.[\w-]{8,}"
    r"|\bhf_[A-Za-z0-9]{8,}|\bnpm_[A-Za-z0-9]{8,}"
    r"|\beyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)*"
    r"|\b\d{8,10}:[\w-]{30,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*",
    re.S,
)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
_SESSION_KEY = re.compile(r"\bagent:[\w.-]+(?::[\w.@+=-]+)+")
_USER_IN_CGROUP = re.compile(r"\b(user[-@])(\d+)\b")


class Identities:
    """Replaces session keys, user and group ids by keyed hashes: equal ones stay equal, nobody without the
    key can tell whose.

    A hash is ``h:`` and 16 hex digits of HMAC-SHA-256 (64 bits: enough to keep millions of users apart).
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()
        return "h:" + digest[:16]

    def number(self, number: int, kind: str = "uid") -> str:
        """The hash of a user id (*kind* ``uid``) or group id (``gid``)."""
        return self.hash(f"{kind}:{number}")

    def sessions_in(self, text: str) -> str:
        """*text* with every session key in it (``agent:main:feishu:direct:ou_...``) hashed."""
        return _SESSION_KEY.sub(lambda match: self.hash(match[0]), text)

    def cgroup(self, path: str) -> str:
        """A cgroup path without the user id that systemd puts in (``user-1000.slice``)."""
        return _USER_IN_CGROUP.sub(lambda match: match[1] + self.number(int(match[2])), path)


def mask_args(args: Iterable[str], identities: Identities | None = None) -> list[str]:
    """*args* of a process as they may be logged: masked, at most `MAX_ARGS` of at most `MAX_ARG`
    characters."""
    masked: list[str] = []
    value_follows = False
    for number, arg in enumerate(args):
        if number == MAX_ARGS:
            masked.append("…")
            break
        if value_follows and not arg.startswith("--"):
            masked.append(MASK)
            value_follows = False
            continue
        value_follows = _OPTION.fullmatch(arg) is not None and not _NOT_A_VALUE.search(arg)
        shown = mask(arg, identities)
        masked.append(shown if len(shown) <= MAX_ARG else shown[: MAX_ARG - 1] + "…")
    return masked


def mask(text: str, identities: Identities | None = None) -> str:
    """One argument (it may be a whole shell script) with what looks like a secret masked, session keys left
    or hashed."""
    parts: list[str] = []
    at = 0
    # a user id in a session key looks random, too, but is what operators search for
    for key in _SESSION_KEY.finditer(text):
        parts += (_mask(text[at : key.start()]), identities.hash(key[0]) if identities else key[0])
        at = key.end()
    parts.append(_mask(text[at:]))
    return "".join(parts)


def _mask(text: str) -> str:
    if not text:
        return text
    text = _KNOWN.sub(MASK, text)
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _URL_TOKEN.sub(rf"\1{MASK}@", text)
    text = _ASSIGNED.sub(_assigned, text)
    text = _OPTION_IN_TEXT.sub(rf"\1{MASK}", text)
    text = _SCHEME.sub(rf"\1\2{MASK}", text)
    return _RUN.sub(lambda match: _mask_run(match[0]), text)


def _assigned(match: re.Match[str]) -> str:
    name = match[1].rstrip("\"' =:")
    return match[0] if _NOT_A_VALUE.search(name) else match[1] + MASK


def _mask_run(run: str) -> str:
    if "/" in run and not ("+" in run or run.endswith("=")):  # a path: each name for itself
        return "/".join(MASK if looks_random(part) else part for part in run.split("/"))
    return MASK if looks_random(run) else run


def looks_random(text: str) -> bool:
    """Whether *text* reads like a key: long, many different characters, often changing between cases and
    digits.

    Random base64 changes its character class at two places of three, hex at one of two, words
    seldom. UUIDs are no secrets here: transcripts are named by them.
    """
    text = _UUID.sub("", text)
    if len(text) < 24 or len(set(text)) < 10:
        return False
    classes = [_character_class(char) for char in text if char.isalnum()]
    changes = sum(1 for one, next_one in pairwise(classes) if one != next_one)
    return len(set(classes)) > 1 and changes >= 0.3 * len(text)


def _character_class(char: str) -> int:
    return 0 if char.isdigit() else 1 if char.islower() else 2
