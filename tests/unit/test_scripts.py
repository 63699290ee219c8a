"""The scripts that strangers run first: what they say where something is missing, what the demo leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
SHELL_SCRIPTS = sorted(
    path
    for path in [*PROJECT.glob("scripts/**/*"), PROJECT / ".ci/run"]
    if path.is_file() and path.read_bytes().startswith(b"#!/bin/")
)
NEEDED_BY_SCRIPTS = [
    "bash",
    "basename",
    "dirname",
    "readlink",
    "mkdir",
    "flock",
    "id",
    "cat",
    "sha256sum",
    "rm",
    "sed",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what set-up and lock work on, without an environment in it."""
    home = tmp_path / "project"
    for name in ("scripts", "requirements", "guardfs"):
        shutil.copytree(PROJECT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, home)
    return home


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A directory for PATH with the tools that the scripts use and no other: no Python, compiler, apt."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in NEEDED_BY_SCRIPTS:
        found = shutil.which(name)
        assert found is not None, name
        (directory / name).symlink_to(found)
    return directory


def script(directory: Path, name: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHON"} | environment
    return subprocess.run(
        [str(directory / "scripts" / name), *args],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def pages() -> list[Path]:
    found = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("policy/*.md")]
    assert len(found) > 5
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_in_a_page_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_a_shell_script_is_executable_and_parses(path: Path) -> None:
    assert os.access(path, os.X_OK)
    interpreter = path.read_text().splitlines()[0].removeprefix("#!")
    assert subprocess.run([interpreter, "-n", str(path)], capture_output=True).stderr == b""


def test_set_up_names_a_useless_PYTHON_in_one_line(copy: Path) -> None:
    done = script(copy, "setup", PYTHON="/nonexistent/python3")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PYTHON=/nonexistent/python3" in done.stderr


def test_set_up_without_any_python_says_how_to_get_one(copy: Path, bare_path: Path) -> None:
    done = script(copy, "setup", PATH=str(bare_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3" in done.stderr


def test_set_up_passes_over_a_shim_that_fails(copy: Path, bare_path: Path) -> None:
    """Version managers put names on PATH that only say that the version is not installed."""
    shim = bare_path / "python3.14"
    shim.write_text("#!/bin/sh\necho 'python3.14: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    (bare_path / "python3").symlink_to(sys.executable)
    done = script(copy, "setup", PATH=str(bare_path))
    assert done.returncode == 2, "there is no compiler and no apt-get on this PATH"
    assert done.stderr.count("\n") == 1
    assert "missing: fuse3 pkg-config libfuse3-dev gcc" in done.stderr
    assert "python3.14: command not found" not in done.stderr


def test_the_locks_fit_the_project(copy: Path) -> None:
    done = script(copy, "lock", "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("pyproject.toml", '"click>=8.1"', '"click>=99"', "uv.lock does not fit pyproject.toml"),
        ("requirements/all.txt", "click==", "click==9.", "requirements/all.txt does not fit uv.lock"),
        (
            "requirements/build.txt",
            "hatchling==",
            "hatchling==9.",
            "requirements/build.txt does not fit uv.lock",
        ),
        ("requirements/runtime.txt", "trio==", "trio==9.", "requirements/runtime.txt does not fit uv.lock"),
    ],
)
def test_a_lock_that_does_not_fit_is_found(copy: Path, file: str, old: str, new: str, said: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    done = script(copy, "lock", "--check")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_locks_name_no_registry_but_the_public_one() -> None:
    lock = (PROJECT / "uv.lock").read_text()
    hosts = {line.split("://")[1].split("/")[0] for line in lock.splitlines() if "://" in line}
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    for path in (PROJECT / "requirements").iterdir():
        assert "://" not in path.read_text()


def test_the_image_gets_what_guardfs_imports_and_nothing_of_the_tests() -> None:
    def names(file: str) -> set[str]:
        text = (PROJECT / "requirements" / file).read_text()
        return set(re.findall(r"^([a-z0-9-]+)==", text, re.M))

    runtime = names("runtime.txt")
    assert {"pyfuse3", "trio", "click", "hypercorn"} <= runtime < names("all.txt")
    assert not runtime & {"pytest", "mypy", "ruff", "uv", "selenium", "hatchling"}


def test_the_test_script_explains_itself_without_set_up(copy: Path) -> None:
    done = script(copy, "test", "--help")
    assert done.returncode == 0
    for option in ("--full", "--lint", "--unit", "--mount", "--gateway", "--crash", "--browser"):
        assert f"  {option}" in done.stdout
    assert not (copy / ".venv").exists()


def demo(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "scripts/demo.py")],
        env=os.environ | {"TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def mounted_below(directory: Path) -> list[str]:
    return [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory}/" in line
    ]


@pytest.mark.mount
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    done, _ = (process := demo(tmp_path)).communicate(timeout=120)
    assert process.returncode == 0, done
    for promised in (
        "$ guardfs blame sessions/5f0c6a52",
        "$ guardfs incidents sessions",
        "$ guardfs explain sessions --log-line '",
        "a turn died: session:agent:main:",
        "from sync.sh",
        "cron/cron.sh[",
        "agent[",
        "add up to the size",
        "Blamed besides: none.",
        "as promised",
    ):
        assert promised in done, promised
    assert "\x1b" not in done, "no colours where the output is not a terminal"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mount
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_cleans_up_when_it_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "gateway" in line and "write" in line:  # the log of a writer at work
            process.send_signal(number)
            break
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(said) + rest
    assert mounted_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
