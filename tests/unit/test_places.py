"""What operators may name, without a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guardfs.errors import GuardError
from guardfs.supervise import places


def test_the_real_path_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real" / "sessions").mkdir(parents=True)
    (tmp_path / "way").symlink_to("real")
    wanted = os.path.realpath(tmp_path / "real" / "sessions")
    assert places.sessions_directory(str(tmp_path / "way" / "sessions")) == wanted
    assert places.sessions_directory(str(tmp_path / "real" / "sessions") + "///") == wanted


@pytest.mark.parametrize("name", ["absent", "file", "link", "link/", "file/x"])
def test_what_is_no_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    with pytest.raises(GuardError) as caught:
        places.sessions_directory(f"{tmp_path}/{name}")
    assert caught.value.mend and "\n" not in str(caught.value)
    assert str(tmp_path) in caught.value.what


def test_the_root_is_not_guarded() -> None:
    with pytest.raises(GuardError, match="cannot be guarded"):
        places.sessions_directory("/")


def test_inside_is_told_from_beside(tmp_path: Path) -> None:
    sessions = os.path.realpath(tmp_path / "sessions")
    os.mkdir(sessions)
    (tmp_path / "way").symlink_to("sessions")
    for path in (sessions, f"{sessions}/log", f"{sessions}/../sessions/log", str(tmp_path / "way" / "log")):
        with pytest.raises(GuardError, match="inside the guarded directory"):
            places.outside(path, sessions, "the audit log would lie", "--audit")
    beside = f"{sessions}-logs/log"
    assert places.outside(beside, sessions, "the audit log would lie", "--audit") == beside


def test_a_file_that_can_be_written(tmp_path: Path) -> None:
    places.writable_file(str(tmp_path / "new"), "an audit log")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").write_text("x")
    places.writable_file(str(tmp_path / "old"), "an audit log")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "no" / "log"):
        with pytest.raises(GuardError):
            places.writable_file(str(path), "an audit log")


def test_where_no_mount_is_none_is_cleared(tmp_path: Path) -> None:
    assert places.clear_dead_mount(str(tmp_path)) is False
    assert places.clear_dead_mount(str(tmp_path / "absent")) is False
