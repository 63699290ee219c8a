"""Which directories a pattern names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guardfs.supervise.finding import is_pattern, matches


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/sessions", "b/sessions", ".c/sessions", "d/other", "[e]/sessions"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "f").write_text("")
    (tmp_path / "g").mkdir()
    (tmp_path / "g/sessions").symlink_to(tmp_path / "a/sessions")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/sessions", ["[e]/sessions", "a/sessions", "b/sessions"]),
        ("?/sessions", ["a/sessions", "b/sessions"]),
        ("[ab]/s*s", ["a/sessions", "b/sessions"]),
        ("[!a]/sessions", ["b/sessions"]),
        (".*/sessions", [".c/sessions"]),
        ("*/*", ["[e]/sessions", "a/sessions", "b/sessions", "d/other"]),
        ("f/*", []),
        ("nothing/*/sessions", []),
        ("*/sessions/", ["[e]/sessions", "a/sessions", "b/sessions"]),
        ("a/../*/sessions", ["[e]/sessions", "a/sessions", "b/sessions"]),
    ],
)
def test_matches(tree: Path, pattern: str, found: list[str]) -> None:
    assert matches(f"{tree}/{pattern}") == [str(tree / each) for each in found]


def test_a_name_that_is_there_is_no_pattern(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert not is_pattern("[e]") and not is_pattern("a") and not is_pattern("missing")
    assert is_pattern("[a]") and is_pattern("*/sessions")
    assert matches("*/other") == [str(tree / "d/other")]


def test_a_home_directory_in_quotes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    assert matches("~/[ab]/sessions") == [str(tree / each) for each in ("a/sessions", "b/sessions")]


def test_names_that_are_not_text(tree: Path) -> None:
    odd = os.fsdecode(os.fsencode(tree) + b"/\xff\n")
    os.makedirs(odd + "/sessions")
    assert odd + "/sessions" in matches(f"{tree}/*/sessions")
