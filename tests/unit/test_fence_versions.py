"""The fence rules of OpenClaw's versions, on the changes that tell them apart."""

from __future__ import annotations

import pytest

from guardfs.fence.changes import Content
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.versions import (
    ASSISTANT,
    MERGING,
    MIRROR,
    NOT_FENCED,
    RULES,
    STRICT,
    UNKNOWN,
    about,
    answers,
    parse_version,
    rule_for,
)

BASE = Fingerprint(1, 50, 1000, 10, 10)
GROWN = Fingerprint(1, 50, 1100, 11, 11)
CTIME = BASE._replace(ctime_ns=12)
TOUCHED = BASE._replace(mtime_ns=12, ctime_ns=12)
REPLACED = GROWN._replace(ino=51)
OTHERS = Content(own=False, assistant=False, mirror=False, side=False, records=1)


@pytest.mark.parametrize(
    ("seen", "content", "expected"),
    [
        (BASE, Content(), "same same same same"),
        (GROWN, OTHERS, "dies dies dies dies"),
        (GROWN, Content(own=False, mirror=False, side=False, records=1), "dies accepts dies dies"),
        (GROWN, Content(own=False, records=1), "dies accepts accepts accepts"),
        (GROWN, Content(own=False, assistant=False, mirror=False, records=1), "dies dies dies accepts"),
        (GROWN, Content(own=False, records=1, torn=True), "dies dies dies dies"),
        (GROWN, Content(own=False, records=1, appends=False), "dies dies dies dies"),
        (GROWN._replace(size=1000 + (2 << 20)), Content(own=False, records=1), "dies accepts dies dies"),
        (CTIME, Content(own=False), "dies dies dies accepts"),
        (TOUCHED, Content(own=False), "dies dies dies dies"),
        (REPLACED, Content(own=False, records=1), "dies dies dies dies"),
        (ABSENT, Content(own=False), "dies dies dies dies"),
        (GROWN, Content(assistant=False, mirror=False, side=False, records=1), "dies dies unknown unknown"),
        (GROWN, Content(own=False, known=False), "dies unknown unknown unknown"),
    ],
)
def test_what_each_rule_says(seen: Fingerprint, content: Content, expected: str) -> None:
    assert [answer for _, answer in answers(BASE, seen, content)] == expected.split()


def test_an_absent_transcript_that_stays_absent_is_the_same_to_all() -> None:
    assert {answer for _, answer in answers(ABSENT, ABSENT, Content())} == {"same"}


@pytest.mark.parametrize(
    ("version", "rule"),
    [
        ("2026.5.17", STRICT),
        ("2026.5.18-beta.1", STRICT),
        ("v2026.5.20", ASSISTANT),
        ("2026.5.22", MIRROR),
        ("2026.5.28", MIRROR),
        ("2026.6.11", MERGING),
        ("2026.7.35", MERGING),
    ],
)
def test_the_rule_of_a_version(version: str, rule: object) -> None:
    assert rule_for(version) is rule


@pytest.mark.parametrize(
    ("version", "says"),
    [("2026.5.12", UNKNOWN), ("2026.6.8", UNKNOWN), ("2026.8.1", NOT_FENCED), ("seven", UNKNOWN)],
)
def test_a_version_without_a_known_rule_says_so(version: str, says: str) -> None:
    assert rule_for(version) is None
    assert about(version) == says


def test_each_rule_names_the_packages_in_which_it_was_read() -> None:
    for rule in RULES:
        for version in rule.read:
            numbers = parse_version(version)
            assert numbers is not None and rule.since <= numbers <= rule.until
