"""What an operator wants served, checked before anything is begun."""

from __future__ import annotations

import msgspec

from guardfs.serve.addresses import Address, parse
from guardfs.serve.auth import check, read_token


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


def plan_of(metrics: str | None, web: str | None, token_file: str | None) -> Plan:
    """The plan that the options ask for; GuardError where it cannot be, or would let strangers in."""
    token = read_token(token_file) if token_file is not None else None
    found = {}
    for option, text in (("--metrics", metrics), ("--web", web)):
        if text is not None:
            found[option] = parse(text, option)
            check(found[option], token, option)
    return Plan(found.get("--metrics"), found.get("--web"), token)
