"""Where pyfuse3 keeps what is read by address."""

from __future__ import annotations

import os
from pathlib import Path

import pyfuse3
import pytest

from guardfs.errors import GuardError
from guardfs.mount import layout
from guardfs.mount.layout import Entry, check_layout


def test_this_pyfuse3_is_as_described() -> None:
    check_layout()


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_object_head", lambda: 24)
    with pytest.raises(GuardError, match="pyfuse3"):
        check_layout()
    with pytest.raises(GuardError, match="pyfuse3"):
        layout._find_container()


def test_node_id_and_inode_number_differ(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    os.utime(path, ns=(1_234_567_890_123_456_789, -1))
    info = path.stat()
    entry = Entry()
    reply = entry.fill(7, info, 3.5, 0.25)
    param = layout.EntryParam.from_address(id(reply) + object.__basicsize__)
    assert (param.ino, param.entry_timeout, param.attr_timeout) == (7, 3.5, 0.25)
    assert param.attr.opaque[1] == info.st_ino  # struct stat: st_dev, st_ino, ...
    for field in ("mode", "nlink", "uid", "gid", "size", "mtime_ns", "atime_ns", "ctime_ns"):
        assert getattr(reply, f"st_{field}") == getattr(info, f"st_{field}"), field


def test_a_name_in_a_list_and_a_name_that_is_not_there() -> None:
    entry = Entry()
    entry.unknown(99)
    param = layout.EntryParam.from_address(id(entry.attributes) + object.__basicsize__)
    assert (param.attr.opaque[1], param.ino) == (99, 0)
    reply = entry.nothing(1.5)
    assert (param.ino, reply.entry_timeout) == (0, 1.5)
    assert isinstance(reply, pyfuse3.EntryAttributes)
