"""Gateways, guards and model servers that are ended, and mounts that are gone, whatever a test does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import watched
from tests.gateway.gateway import Gateway
from tests.gateway.install import Install, install
from tests.gateway.model import ModelServer
from tests.support.guard import Guard
from tests.support.machine import FULL
from tests.support.mounts import clear_mounts

StartGateway = Callable[..., Gateway]
StartGuard = Callable[..., Guard]

GATEWAY_HUNG_SECONDS = 7200.0 if FULL or os.environ.get("GUARDFS_ROW_RUNS") else 1500.0
"""After which all tests of a module together count as hung."""


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


@dataclass
class Site:
    """A gateway on a guarded directory, for all tests of a module."""

    gateway: Gateway
    guard: Guard
    model: ModelServer


@contextmanager
def running(
    openclaw: Install, place: Path, *options: str, guarded: bool = True
) -> Iterator[tuple[Gateway, Guard, ModelServer]]:
    """A gateway in *place* on a directory that is guarded with *options*, or would be; all of it ended at the end, and
    the guard's warnings looked at."""
    with ModelServer() as model:
        gateway = Gateway(openclaw, place / "home/.openclaw", model)
        guard = Guard(gateway.sessions, place / "guard", *options, quiet=True)
        with watched([guard], GATEWAY_HUNG_SECONDS):
            try:
                if guarded:
                    guard.start()
                gateway.start()
                yield gateway, guard, model
            finally:
                try:
                    gateway.stop()
                finally:
                    guard.destroy()
            guard.check_said()


@pytest.fixture(scope="module")
def site(openclaw: Install, module_place: Path) -> Iterator[Site]:
    """One gateway under ``--policy openclaw``."""
    with running(openclaw, module_place, "--policy", "openclaw") as (gateway, guard, model):
        yield Site(gateway, guard, model)
