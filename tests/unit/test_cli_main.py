"""The command line as operators and scripts meet it: one line for bad input, nothing imported for nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from guardfs import __version__
from guardfs.cli.main import COMMANDS

HEAVY = ("click", "rich", "trio", "pyfuse3", "msgspec", "psutil", "xattr", "asyncio")


def guardfs(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guardfs", *args], capture_output=True, text=True, timeout=60
    )


def imported_by(code: str) -> set[str]:
    """The modules that are loaded in a new interpreter once *code* has ended, by SystemExit too."""
    wrapped = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", wrapped], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


def test_version_is_printed_alone() -> None:
    done = guardfs("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"guardfs {__version__}\n", "")


def test_version_imports_nothing_heavy() -> None:
    loaded = imported_by("from guardfs.cli.main import main; main(['--version'])")
    assert "guardfs.cli.main" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_lists_every_command_and_imports_none() -> None:
    done = guardfs("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    loaded = imported_by("from guardfs.cli.main import main; main(['--help'])")
    assert not {target.partition(":")[0] for target, _ in COMMANDS.values()} & loaded
    assert loaded.isdisjoint({"trio", "pyfuse3"})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    done = guardfs(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"guardfs {name}" in done.stdout
    assert "Example" in done.stdout


def test_no_command_shows_the_help_as_it_is_meant_to_be_read() -> None:
    done = guardfs()
    assert done.returncode == 2
    assert "\nCommands:\n" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("mout",), "did you mean 'mount'?"),
        (("zzz",), "`guardfs --help` lists the commands"),
        (("--hlp",), "--help"),
        (("status", "--jsn"), "--json"),
        (("mount", "--no-such-option", "."), "--no-such-option"),
        (("mount",), "guardfs mount --help"),
    ],
)
def test_bad_input_is_answered_with_one_line_and_status_2(args: tuple[str, ...], said: str) -> None:
    done = guardfs(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("guardfs")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """``guardfs ... | head -1``: the pipe is closed before anything is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "guardfs", "--help"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, "")
