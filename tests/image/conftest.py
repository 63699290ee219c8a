"""The images, built once; a gateway in a container; all of it gone afterwards, whatever a test does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.install import install
from tests.gateway.model import ModelServer
from tests.image import compose
from tests.image.engine import Container, Engine
from tests.image.gateway import ContainedGateway
from tests.image.network import Network
from tests.support.guard import Event, events_of
from tests.support.mounts import clear_mounts

GATEWAY, CLI = "openclaw-gateway", "openclaw-cli"
"""The services of examples/compose.yaml, and what their containers are called here."""


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The images of `scripts/image --example`. Where they cannot be built, tests fail: they do not skip.

    GUARDFS_IMAGES names a storage that the script has filled before; it is used as it is, and stays.
    """
    ready = os.environ.get("GUARDFS_IMAGES")
    if ready:
        yield Engine(Path(ready).resolve())
        return
    built = Engine(tmp_path_factory.mktemp("image") / "storage")
    try:
        yield built.build()
    finally:
        built.close()


@dataclass
class Site:
    """A gateway in a container as compose.yaml has it, enforcing; its state and the guard's lie in *place*."""

    engine: Engine
    network: Network
    model: ModelServer
    gateway: ContainedGateway
    container: Container
    place: Path

    @property
    def sessions(self) -> Path:
        """The directory below the guard, as this machine has it."""
        return self.gateway.sessions

    def service(self, name: str) -> tuple[list[str], list[str]]:
        """Options and command line of a service of compose.yaml."""
        return service(name, self.place)

    def events(self) -> list[Event]:
        """The audit log."""
        return [
            event for path in sorted((self.place / "state").rglob("audit.jsonl")) for event in events_of(path)
        ]


def service(name: str, place: Path) -> tuple[list[str], list[str]]:
    """Options of `podman run` and the whole command line of a service, enforcing, with its directories in *place*."""
    home = place / "home/.openclaw"
    said = compose.load(
        OPENCLAW_CONFIG_DIR=str(home), GUARDFS_MODE="enforce", OPENCLAW_GATEWAY_TOKEN="harness"
    )
    found = said["services"][name]
    volumes = {each: str(place / "state") for each in said["volumes"]}
    return compose.options(found, {GATEWAY: GATEWAY}, volumes), compose.entrypoint(found)


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    """*directory* as it is on a host that systemd has started: on a mount that is shared."""
    for words in (["--bind", str(directory), str(directory)], ["--make-shared", str(directory)]):
        subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        clear_mounts(directory)


@pytest.fixture(scope="module")
def site(engine: Engine, module_place: Path) -> Iterator[Site]:
    """A running gateway. A test may end it; what is left is removed."""
    home, state = module_place / "home/.openclaw", module_place / "state"
    for directory in (home, state):
        directory.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, module_place / "home", ignore_errors=True)
        stack.enter_context(shared(module_place / "home"))
        network = Network()
        stack.callback(network.close)
        with network.inside():
            model = ModelServer()
        stack.enter_context(model)
        gateway = ContainedGateway(install(), home, model, network, engine)
        options, words = service(GATEWAY, module_place)
        container = Container(
            engine,
            GATEWAY,
            "openclaw-guarded",
            [*options, *gateway.variables(), f"--network=ns:{network.path}", f"--entrypoint={words[0]}"],
            words[1:],
        )
        stack.callback(container.remove)
        container.start()
        gateway.attach(container)
        yield Site(engine, network, model, gateway, container, module_place)
