"""The state directory: its format, its key, its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from guardfs.errors import GuardError
from guardfs.state.directory import FORMAT, StateDirectory, default_state_dir


def test_is_made_for_nobody_else(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path / "deep" / "state"))
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700
    assert json.loads(Path(state.file("format")).read_text()) == {"format": FORMAT}
    assert sorted(os.listdir(state.path)) == ["format"]


def test_is_opened_again(tmp_path: Path) -> None:
    first = StateDirectory(str(tmp_path))
    key = first.key()
    assert len(key) == 32
    assert StateDirectory(str(tmp_path)).key() == key
    assert os.stat(first.file("hash.key")).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ['{"format": 2}', '{"format": "1"}', "{}", "[]", "", "nonsense", "\xff"])
def test_another_format_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "format").write_text(content)
    with pytest.raises(GuardError) as caught:
        StateDirectory(str(tmp_path))
    assert caught.value.mend
    assert os.listdir(tmp_path) == ["format"]
    assert (tmp_path / "format").read_text() == content


def test_a_broken_key_is_refused(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    (tmp_path / "hash.key").write_bytes(b"short")
    with pytest.raises(GuardError):
        state.key()


@pytest.mark.parametrize("path", ["/proc/guardfs", "/dev/null/x"])
def test_a_place_that_cannot_be_written(path: str) -> None:
    with pytest.raises(GuardError, match=path):
        StateDirectory(path)


def test_each_directory_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        default_state_dir(path)
        for path in ("/srv/a/sessions", "/srv/b/sessions", "/srv/a-sessions", "/s\udcff")
    }
    assert len(found) == 4
    assert all(os.path.basename(path).isascii() for path in found)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/.state")
    assert default_state_dir("/srv/a/sessions").startswith("/home/u/.state/guardfs/")
