"""Where stories are played."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory, where there is such a place: what is tried here is order, not disks."""
    memory = Path("/dev/shm")
    found = tempfile.mkdtemp(prefix="guardfs-stories-", dir=memory if memory.is_dir() else None)
    yield Path(found)
    shutil.rmtree(found)
