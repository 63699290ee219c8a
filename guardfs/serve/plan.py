"""What an operator wants served, checked before anything is begun."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

import msgspec

from guardfs.errors import GuardError
from guardfs.serve.addresses import Address, parse

SHORTEST = 16
"""Characters of a token: 16 random ones of an alphabet of 64 cannot be guessed."""

_LONGEST = 4096


class Plan(msgspec.Struct, frozen=True):
    """What is to be served where. token: needed for every request, None for none."""

    metrics: Address | None = None
    web: Address | None = None
    token: bytes | None = None

    def addresses(self) -> dict[Address, list[str]]:
        """What each address serves: ``metrics``, ``web`` or both."""
        found: dict[Address, list[str]] = {}
        for what, address in (("metrics", self.metrics), ("web", self.web)):
            if address is not None:
                found.setdefault(address, []).append(what)
        return found


class Known(msgspec.Struct, frozen=True):
    """What is known of a guard without asking it. sessions: real path of the directory; state: its state directory;
    audit: path of the log."""

    sessions: str
    state: str | None = None
    audit: str | None = None


def encode_plan(plan: Plan) -> bytes:
    """As a line, for the process that serves it."""
    return msgspec.json.encode(plan) + b"\n"


def decode_plan(line: bytes) -> Plan:
    """What `encode_plan` made."""
    return msgspec.json.decode(line, type=Plan)


def encode_guards(known: Iterable[Known]) -> bytes:
    """The same for all the guards there are. Paths that are not UTF-8 hold escaped surrogates, which msgspec
    refuses."""
    return json.dumps([msgspec.to_builtins(each) for each in known]).encode() + b"\n"


def decode_guards(line: bytes) -> list[Known]:
    """What `encode_guards` made."""
    return msgspec.convert(json.loads(line), list[Known])


def plan_of(metrics: str | None, web: str | None, token_file: str | None) -> Plan:
    """The plan that the options ask for; GuardError where it cannot be, or would let strangers in."""
    token = read_token(token_file) if token_file is not None else None
    found = {}
    for option, text in (("--metrics", metrics), ("--web", web)):
        if text is not None:
            found[option] = parse(text, option)
            check(found[option], token, option)
    return Plan(found.get("--metrics"), found.get("--web"), token)


def read_token(path: str) -> bytes:
    """The token that the file *path* holds. GuardError where there is none that could keep anybody out."""
    mend = "put one line of 16 characters or more there: openssl rand -hex 24"
    try:
        with open(path, "rb") as file:
            token = file.read(_LONGEST + 1).strip()
    except OSError as error:
        raise GuardError(f"{path}: the token cannot be read: {error.strerror}", mend) from None
    if not re.fullmatch(rb"[!-~]*", token) or len(token) > _LONGEST:
        raise GuardError(f"{path}: holds no token: more than one word of ASCII", mend)
    if len(token) < SHORTEST:
        raise GuardError(f"{path}: a token of {len(token)} characters can be guessed", mend)
    return token


def others_read(path: str) -> bool:
    """Whether every user may read the file *path*."""
    return os.stat(path).st_mode & 0o004 != 0


def check(address: Address, token: bytes | None, option: str) -> None:
    """GuardError if strangers could reach *address* without a token."""
    if token is None and not address.loopback:
        raise GuardError(
            f"{option} {address}: other machines reach it, and would need no token",
            "listen on 127.0.0.1, or give a file with a token",
        )
