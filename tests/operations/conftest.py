"""A file system over a fresh directory, and a check that it leaves no descriptor open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.descriptors import none_left_open
from tests.support.direct import Direct

MakeFs = Callable[..., Direct]


@pytest.fixture
def make_fs(tmp_path: Path) -> Iterator[MakeFs]:
    """``make_fs(below=..., descriptors=...)``; fails the test if a descriptor is left over at its end."""
    made: list[Direct] = []

    def make(**more: Any) -> Direct:
        directory = tmp_path / f"sessions-{len(made)}"
        directory.mkdir()
        made.append(Direct(directory, **more))
        return made[-1]

    with none_left_open():
        umask = os.umask(0o022)
        yield make
        for fs in made:
            fs.end()
        os.umask(umask)


@pytest.fixture
def fs(make_fs: MakeFs) -> Direct:
    return make_fs()
