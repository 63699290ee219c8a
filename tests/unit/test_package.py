"""What is installed: the package that is built has everything that the commands read."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from guardfs import drawing

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_scripts_styles_policies_and_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name in (*drawing.SCRIPTS, *drawing.STYLES):
            assert (
                archive.read(f"guardfs/drawing/{name}") == (ROOT / "guardfs" / "drawing" / name).read_bytes()
            )
    assert {
        "guardfs/report/page.js",
        "guardfs/report/page.css",
        "guardfs/py.typed",
        "guardfs/policies/openclaw.toml",
    } <= names


def test_every_script_and_style_of_the_drawing_is_used() -> None:
    there = {path.name for path in (ROOT / "guardfs" / "drawing").iterdir() if path.suffix in (".js", ".css")}
    assert there == {*drawing.SCRIPTS, *drawing.STYLES}
    assert drawing.script().count('"use strict"') == len(drawing.SCRIPTS)
