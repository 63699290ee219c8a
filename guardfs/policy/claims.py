"""Who a writer is where no lane of the policy matches: what it claims, if that is believed; else its program. Pure."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from guardfs.lanes.label import lane_of
from guardfs.lanes.writer import Writer
from guardfs.policy.globs import Globs
from guardfs.policy.model import Policy

By = Literal["attribute", "environment"]

_LANE = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")

_STATES = frozenset(("outside", "kernel", "exited", "unseen"))
"""Lanes of writers of whom nothing is known; nobody may claim these."""


class Fallback(msgspec.Struct, frozen=True):
    """The lane of a writer that no lane of the policy matches. evidence: ``label``, ``claim.attribute`` or
    ``claim.environment``."""

    lane: str
    evidence: str


class Claims:
    """What one policy believes.

    A claim (by attribute before by environment) gives a lane if it looks like a lane's name, but never the name of a
    lane that the policy declares: nobody becomes by a claim what evidence defines. Nor by the name of a program: a
    label that begins as a declared lane's name is written ``exe:LABEL``.
    """

    def __init__(self, policy: Policy) -> None:
        self._attribute = _globs(policy.claims.attribute)
        self._environment = _globs(policy.claims.environment)
        self._reserved = _STATES.union(lane.name for lane in policy.lanes)
        self._outermost = frozenset(lane.name for lane in policy.lanes if lane.within is None)
        self._mark = "exe:"
        while self._mark[:-1] in self._outermost:
            self._mark = "_" + self._mark

    def believed(self, by: By, claim: str | None) -> bool:
        """Whether the policy believes *claim*, made in this way."""
        globs = self._attribute if by == "attribute" else self._environment
        return claim is not None and globs.of(claim) != 0

    def of(self, writer: Writer, attribute: str | None) -> tuple[str, ...]:
        """What is claimed and believed: by the attribute, then by the environment."""
        environment = None if writer.process is None else writer.process.environ_lane
        pairs: tuple[tuple[By, str | None], ...] = (("attribute", attribute), ("environment", environment))
        return tuple(claim for by, claim in pairs if claim is not None and self.believed(by, claim))

    def lane(self, by: By, claim: str | None) -> Fallback | None:
        """The lane that *claim* gives, if it gives one."""
        if (
            claim is None
            or claim in self._reserved
            or not _LANE.fullmatch(claim)
            or not self.believed(by, claim)
        ):
            return None
        return Fallback(claim, f"claim.{by}")

    def fallback(self, writer: Writer) -> Fallback:
        """The lane of *writer*, unless it claims one by the attribute."""
        found = self.lane("environment", writer.process.environ_lane) if writer.process is not None else None
        if found is not None:
            return found
        label = lane_of(writer)
        if label.partition(":")[0] in self._outermost:
            label = self._mark + label
        return Fallback(label, "label")


def _globs(globs: tuple[str, ...]) -> Globs:
    table = Globs()
    for glob in globs:
        table.add(glob, 1)
    table.freeze()
    return table
