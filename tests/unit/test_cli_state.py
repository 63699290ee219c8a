"""The journal read without a guard: `guardfs state`, and what `guardfs recover` refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from guardfs.errors import GuardError
from guardfs.state.branches import BranchFacts, BranchStore, GhostFacts, Intent
from guardfs.state.directory import StateDirectory
from guardfs.state.journal import entries
from tests.support.commands import guardfs

RECORD = b'{"type":"message","id":"a","parentId":"b"}\n'


def facts(number: int, **more: object) -> BranchFacts:
    return BranchFacts(number=number, transcript=b"a\xff.jsonl", lane="cron", opened=10**18, **more)  # type: ignore[arg-type]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A branch whose rebase has begun, one that replaces, one that was itself replaced, and a ghost."""
    path = tmp_path / "state"
    StateDirectory(str(path))
    store = BranchStore(str(path))
    begun = store.create(lambda number: facts(number, base=7), [RECORD])
    store.begin(begun, Intent(size=7, added=len(RECORD)), RECORD)
    old = store.create(lambda number: facts(number), [b"old"])
    store.create(lambda number: facts(number, whole=True), [b"new one"], follows=old.number)
    ghost = GhostFacts(transcript=b"b.jsonl", name=b"b.old", inode=1, device=1, size=9, removed=True)
    store.haunt(ghost)
    (path / "branches" / f"{old.number}.json").write_text(
        (path / "branches" / "3.json")
        .read_text()
        .replace('"number":3', '"number":2')
        .replace('"follows":2', '"follows":0')
    )
    (path / "branches" / f"{old.number}.data").write_bytes(b"old")
    (path / "branches" / "9.json.tmp").write_bytes(b"{")
    store.close()
    return path


def test_everything_is_listed_and_nothing_is_changed(state: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [state, *state.rglob("*")]}
    shown = guardfs("state", "--state", state)
    assert shown.returncode == 1 and not shown.stderr
    assert "3 wait, 50 bytes" in shown.stdout
    lines = shown.stdout.splitlines()[2:]
    assert "goes behind it (began at 7 bytes), its rebase has begun" in lines[0]
    assert "replaces the transcript" in lines[1] and "removed under its owner; the file is b.old" in lines[2]
    (found,) = json.loads(guardfs("state", "--state", state, "--json").stdout)
    assert [entry["number"] for entry in found["entries"]] == [1, 3, 4]
    first = found["entries"][0]
    assert (first["transcript"], first["bytes"], first["base"], first["begun"]) == (
        "a\\xff.jsonl",
        43,
        7,
        True,
    )
    assert first["opened_ns"] == 10**18 and first["written_ns"] > 10**18
    assert before == {path: path.stat().st_mtime_ns for path in [state, *state.rglob("*")]}


def test_an_empty_journal_is_fine(tmp_path: Path) -> None:
    StateDirectory(str(tmp_path / "state"))
    shown = guardfs("state", "--state", tmp_path / "state")
    assert (shown.returncode, shown.stdout) == (0, f"{tmp_path}/state: nothing waits\n")


def test_names_that_vanish_while_they_are_read_are_left_out(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = os.listdir(state / "branches")
    (state / "branches" / "1.json").unlink()
    monkeypatch.setattr(os, "listdir", lambda path: names)
    assert [entry.number for entry in entries(str(state))] == [3, 4]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("format", '{"format": 99}', "format 99"),
        ("format", "nonsense", "not a state directory"),
        ("branches/1.json", '{"format": 99}', "not what guardfs wrote"),
        ("branches/1.json", "", "not what guardfs wrote"),
        ("branches/4.ghost", "[]", "not what guardfs wrote"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_2(state: Path, file: str, content: str, said: str) -> None:
    (state / file).write_text(content)
    with pytest.raises(GuardError):
        entries(str(state))
    sessions = state.parent / "sessions"
    sessions.mkdir()
    for words in (["state"], ["recover", sessions]):
        done = guardfs(*words, "--state", state)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert said in done.stderr and len(done.stderr.splitlines()) == 1 and ";" in done.stderr


def test_a_newer_journal_is_refused(state: Path) -> None:
    path = state / "branches" / "1.json"
    path.write_text(path.read_text().replace('"format":1', '"format":2'))
    done = guardfs("state", "--state", state)
    assert done.returncode == 2 and "format 2" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["state", "--state", "{tmp}/absent"], "no state of a guard"),
        (["state", "{tmp}/absent"], "no such directory"),
        (["recover", "{tmp}/absent"], "no such directory"),
        (["recover", "{tmp}", "--state", "{tmp}/absent"], "no state of a guard"),
        (["recover", "{tmp}", "--state", "{tmp}/state"], "--policy"),
        (["recover", "{tmp}", "--state", "{tmp}/state", "--policy", "opencalw"], "did you mean"),
        (["recover"], "DIR"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(state: Path, words: list[str], said: str) -> None:
    done = guardfs(*(word.format(tmp=state.parent) for word in words))
    assert (done.returncode, done.stdout) == (2, ""), done
    assert said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_the_format_may_be_named(state: Path) -> None:
    for path in (state / "branches").glob("[134].*"):
        path.unlink()
    sessions = state.parent / "sessions"
    sessions.mkdir()
    done = guardfs("recover", sessions, "--state", state, "--policy", "openclaw")
    assert done.returncode == 1 and "kept as" in done.stdout  # the transcript that it stands on is gone
    assert [path.read_bytes() for path in sessions.iterdir()] == [b"old"]
    assert guardfs("state", "--state", state).returncode == 0
