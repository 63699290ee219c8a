"""Directories, guards that are ended whatever a test does, and Hypothesis without chance."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from tests.gateway.figures import FIGURES
from tests.support.guard import Guard
from tests.support.machine import FULL, cannot_browse, cannot_mount
from tests.support.mounts import clear_mounts

StartGuard = Callable[..., Guard]

HUNG_SECONDS = 7200.0 if FULL else 240.0
"""After which a test on a mount counts as hung. A call that a guard does not answer cannot be interrupted, so
the connection is broken then, and the test fails instead of standing still for ever."""

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background by a shell; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "guardfs",
    derandomize=not FULL,  # the same examples in every run of CI; new ones in the long runs
    deadline=None,
    database=None,
    print_blob=FULL,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("guardfs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that mount are skipped, with the reason, where nothing can be mounted; long ones in short runs."""
    reason, blind = cannot_mount(), cannot_browse()
    for item in items:
        if blind and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=blind))
        if reason and any(item.get_closest_marker(name) for name in ("mount", "crash", "gateway", "image")):
            item.add_marker(pytest.mark.skip(reason=reason))
        if not FULL and item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="long: only with GUARDFS_FULL=1"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests measured and counted."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.write_line(line)


def _fresh_place() -> Path:
    """A directory below which other users reach theirs, which they do not in pytest's own."""
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="guardfs-test-")))
    path.chmod(0o755)
    return path


def _clear_place(path: Path) -> list[Path]:
    left = clear_mounts(path)
    shutil.rmtree(path, ignore_errors=True)
    return left


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the test's own, reachable by every user; a mount that is left in it fails the test."""
    path = _fresh_place()
    yield path
    left = _clear_place(path)
    assert not left, f"left mounted: {left}"


@pytest.fixture(scope="module")
def module_place() -> Iterator[Path]:
    """The same for all tests of a module."""
    path = _fresh_place()
    yield path
    left = _clear_place(path)
    assert not left, f"left mounted: {left}"


@contextmanager
def watched(guards: list[Guard], seconds: float = HUNG_SECONDS) -> Iterator[None]:
    """For as long as the block runs: break the connections of *guards* if it hangs."""

    def give_up() -> None:
        for guard in guards:
            guard.abort()

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@pytest.fixture
def new_guard(place: Path) -> Iterator[StartGuard]:
    """``new_guard(*options)``: a `Guard` over a fresh directory, not started; not checked at the end, but
    gone."""
    made: list[Guard] = []

    def make(*options: str, directory: Path | None = None, **more: object) -> Guard:
        if directory is None:
            directory = place / f"sessions-{len(made)}"
            directory.mkdir()
        guard = Guard(directory, place / f"beside-{len(made)}", *options, **more)  # type: ignore[arg-type]
        made.append(guard)
        return guard

    with watched(made):
        yield make
        for guard in reversed(made):
            guard.destroy()


@pytest.fixture
def start_guard(new_guard: StartGuard) -> Iterator[StartGuard]:
    """``start_guard(*options)``: a running `Guard` over a fresh directory. What still runs at the end of the
    test is stopped, and checked as `Guard.stop` says."""
    started: list[Guard] = []

    def start(*options: str, **more: object) -> Guard:
        guard = new_guard(*options, **more)
        started.append(guard)
        return guard.start()

    yield start
    for guard in reversed(started):
        if guard.process is not None and guard.process.poll() is None:
            guard.stop()


@pytest.fixture
def guard(start_guard: StartGuard) -> Guard:
    """A guard with default options over a fresh directory."""
    return start_guard()


@pytest.fixture(scope="module")
def module_guard(module_place: Path) -> Iterator[Guard]:
    """One guard for all tests of a module; checked at the end."""
    directory = module_place / "sessions"
    directory.mkdir()
    guard = Guard(directory, module_place / "beside")
    with watched([guard], 3 * HUNG_SECONDS):
        try:
            yield guard.start()
            guard.stop()
        finally:
            guard.destroy()
