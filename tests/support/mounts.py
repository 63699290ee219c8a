"""The mount table as a test sees it; written without the product's own reader of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below *directory*, in the order in which they were mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        name = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        path = Path(os.fsdecode(name))
        if path == directory or directory in path.parents:
            found.append(path)
    return found


def clear_mounts(directory: Path) -> list[Path]:
    """Detach every mount at or below *directory*; which they were."""
    found = mounts_below(directory)
    for mount in reversed(found):
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)
    return found
