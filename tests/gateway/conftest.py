"""Gateways, guards and model servers that are ended, and mounts that are gone, whatever a test does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.gateway.gateway import Gateway
from tests.gateway.install import Install, install
from tests.gateway.model import ModelServer
from tests.support.guard import Guard
from tests.support.mounts import clear_mounts

StartGateway = Callable[..., Gateway]
StartGuard = Callable[..., Guard]


@pytest.fixture(scope="session")
def openclaw() -> Install:
    """The pinned release, installed on first use. Where that is impossible, tests fail: they do not skip."""
    return install()


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own; fails the test if a mount is left in it, and takes the mount away."""
    yield tmp_path
    left = clear_mounts(tmp_path)
    assert not left, f"left mounted: {left}"


@pytest.fixture
def start_guard(place: Path) -> Iterator[StartGuard]:
    """``start_guard(directory, *options)`` mounts, once no lock file is left; what is still mounted at the end is
    unmounted, and a warning that it gave fails the test."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse")
    started: list[Guard] = []

    def start(directory: Path, *options: str) -> Guard:
        guard = Guard(directory, place / f"guard-{len(started)}", *options, quiet=True)
        started.append(guard)
        return guard.start()

    yield start
    for guard in reversed(started):
        guard.destroy()
        guard.check_said()


@pytest.fixture
def start_gateway(
    place: Path, start_guard: StartGuard, openclaw: Install, model: ModelServer
) -> Iterator[StartGateway]:
    """``start_gateway(prefix=(), before=None)``; *before* gets the sessions directory just before the start.

    Depends on `start_guard` so that gateways end before the guards below them.
    """
    started: list[Gateway] = []

    def start(prefix: Sequence[str] = (), before: Callable[[Path], object] | None = None) -> Gateway:
        gateway = Gateway(openclaw, place / f"home-{len(started)}" / ".openclaw", model, prefix=prefix)
        started.append(gateway)
        if before:
            before(gateway.sessions)
        gateway.start()
        return gateway

    yield start
    for gateway in reversed(started):
        gateway.stop()
