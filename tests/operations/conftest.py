"""A file system over a fresh directory, and a check that it leaves no descriptor open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct import Direct

MakeFs = Callable[..., Direct]


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def make_fs(tmp_path: Path) -> Iterator[MakeFs]:
    """``make_fs(below=..., descriptors=...)``; fails the test if a descriptor is left over at its end."""
    before = _descriptors()
    umask = os.umask(0o022)
    made: list[Direct] = []

    def make(**more: Any) -> Direct:
        directory = tmp_path / f"sessions-{len(made)}"
        directory.mkdir()
        made.append(Direct(directory, **more))
        return made[-1]

    yield make
    for fs in made:
        fs.end()
    os.umask(umask)
    assert _descriptors() <= before, "descriptors left open"


@pytest.fixture
def fs(make_fs: MakeFs) -> Direct:
    return make_fs()
