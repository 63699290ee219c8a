"""What an operator can get wrong: one line with the thing, the reason and the mend, and exit status 2."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.guard import GUARDFS, environment
from tests.support.mounts import mounts_below
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

Case = Callable[[Path], list[object]]


def _good(place: Path) -> Path:
    directory = place / "sessions"
    directory.mkdir(exist_ok=True)
    return directory


def _mount(place: Path, *options: object, directory: object = None) -> list[object]:
    own = ["--state", place / "state", "--audit", place / "audit.jsonl"]
    return ["mount", directory if directory is not None else _good(place), "--force", *own, *options]


def _file(place: Path) -> Path:
    path = place / "a-file"
    path.write_text("x")
    return path


def _symlink(place: Path) -> Path:
    path = place / "a-link"
    path.symlink_to(_good(place))
    return path


def _socket(place: Path) -> Path:
    path = place / "a-socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def _newer_state(place: Path) -> Path:
    state = place / "newer"
    state.mkdir()
    (state / "format").write_text('{"format": 999}\n')
    return state


def _other_log(place: Path) -> Path:
    path = place / "other.log"
    path.write_text("this is no audit log\n")
    return path


CASES: dict[str, tuple[Case, str]] = {
    "directory missing": (lambda place: _mount(place, directory=place / "absent"), "no such directory"),
    "not a directory": (lambda place: _mount(place, directory=_file(place)), "not a directory"),
    "below a file": (lambda place: _mount(place, directory=_file(place) / "x"), "Not a directory"),
    "a symlink": (lambda place: _mount(place, directory=_symlink(place)), "symlink"),
    "a symlink with a slash": (lambda place: _mount(place, directory=f"{_symlink(place)}/"), "symlink"),
    "the root directory": (lambda place: _mount(place, directory="/"), "cannot be guarded"),
    "an empty name": (lambda place: _mount(place, directory=""), ""),
    "audit inside": (lambda place: _mount(place, "--audit", _good(place) / "a.log"), "inside the guarded"),
    "state inside": (lambda place: _mount(place, "--state", _good(place) / "st"), "inside the guarded"),
    "state is a file": (lambda place: _mount(place, "--state", _file(place)), "not a directory"),
    "state below a file": (lambda place: _mount(place, "--state", _file(place) / "x"), "a-file"),
    "state of a newer version": (lambda place: _mount(place, "--state", _newer_state(place)), "format 999"),
    "audit is a directory": (lambda place: _mount(place, "--audit", place), "a directory"),
    "audit is a socket": (lambda place: _mount(place, "--audit", _socket(place)), "not a regular file"),
    "audit in no directory": (lambda place: _mount(place, "--audit", place / "no" / "a.log"), "no directory"),
    "audit unwritable": (lambda place: _mount(place, "--audit", "/proc/a.log"), "/proc"),
    "state unwritable": (lambda place: _mount(place, "--state", "/proc/guardfs"), "/proc"),
    "audit is no log": (lambda place: _mount(place, "--audit", _other_log(place)), "other.log"),
    "unknown option": (lambda place: _mount(place, "--nonsense"), "--nonsense"),
    "option without a value": (lambda place: ["mount", _good(place), "--state"], "--state"),
    "unknown level": (lambda place: _mount(place, "--audit-level", "loud"), "loud"),
    "size that is none": (lambda place: _mount(place, "--audit-size", "big"), "big"),
    "negative timeout": (lambda place: _mount(place, "--timeout", "-1"), "timeout"),
    "unknown command": (lambda place: ["moutn", _good(place)], "did you mean 'mount'"),
    "no directory given": (lambda place: ["mount"], "DIR"),
    "a directory and one in it": (
        lambda place: ["mount", _good(place), place, "--state", "/var/lib/guardfs-absent"],
        "one guard is enough",
    ),
    "a pattern, and a log in no directory": (
        lambda place: _mount(
            place, "--audit", place / "absent/log", directory=f"{_good(place).parent}/[s]essions"
        ),
        "no directory",
    ),
    "run without sessions": (lambda place: ["run", "--", "true"], "--sessions"),
    "run without a command": (lambda place: ["run", "--sessions", _good(place)], "COMMAND"),
    "unmount what is not guarded": (lambda place: ["unmount", _good(place)], "not guarded"),
    "unmount what is not there": (lambda place: ["unmount", place / "absent"], ""),
    "status of what is not there": (lambda place: ["status", place / "absent"], "no such"),
    "verify a log that is none": (
        lambda place: ["audit", "verify", "--audit", _other_log(place)],
        "other.log",
    ),
    "tail a log that is none": (lambda place: ["tail", "--audit", _other_log(place)], "other.log"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_exit_status_2(place: Path, name: str) -> None:
    make, wanted = CASES[name]
    errors = place / "stderr"
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            [*GUARDFS, *map(str, make(place))],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(),
            cwd="/",
        )
    try:
        wait_for(
            lambda: child.poll() is not None or "guarding" in errors.read_text(), "the command to refuse"
        )
        refused = child.poll() is not None
    finally:
        if child.poll() is None:  # it did what it should have refused, or hangs
            child.terminate()
        out, _ = child.communicate(timeout=60)
    said = errors.read_text()
    assert refused, said
    assert not mounts_below(place)
    assert (child.returncode, out) == (2, b""), said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    assert wanted in said
    assert ";" in said, "no mend"


def test_dev_fuse_absent_or_forbidden(place: Path) -> None:
    """In a mount namespace whose /dev/fuse is something else."""
    words = [*GUARDFS, *map(str, _mount(place))]
    for script, wanted in (
        ('mount -t tmpfs none /dev && exec "$@"', "/dev/fuse"),
        ('mount --bind /dev/null /dev/fuse && exec "$@"', ""),
    ):
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", *words],
            capture_output=True,
            text=True,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert wanted in done.stderr
    assert os.listdir(_good(place)) == []
