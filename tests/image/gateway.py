"""A real OpenClaw gateway in a container, as `tests.gateway.gateway` has one in a process.

Its state directory is one of this machine, bound into the container. The guard's mount comes out of it (rshared), so
what is read here is what a process outside of the container is shown.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.gateway.gateway import QUIET, READY_SECONDS, TOKEN, Gateway, Turn, wait_until
from tests.gateway.install import Install
from tests.gateway.model import ModelServer
from tests.image.engine import Container, Engine
from tests.image.network import Network

HOME = "/home/node"
STATE = f"{HOME}/.openclaw"
NODE = 1000
"""The user that OpenClaw's image runs as."""

PORT = 18789


class ContainedGateway(Gateway):
    """See the module. *state* is bound to ``/home/node/.openclaw``; `attach` says which container it runs in."""

    def __init__(
        self, install: Install, state: Path, model: ModelServer, network: Network, engine: Engine
    ) -> None:
        super().__init__(install, state, model, port=PORT)
        self.network = network
        self.engine = engine
        self._pool.shutdown()
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="turn", initializer=network.enter)
        self.container: Container | None = None
        (self.state / "openclaw.json").write_text(json.dumps(self._config(), indent=2))
        self.log.touch()  # its container has the real one
        self._give_to_node()
        # Without an index of its plugins it looks for them anew in each turn; every set-up makes it.
        self.engine.run(
            "run", "--rm", "--network=none", f"--volume={self.state}:{STATE}", *self.variables(), "openclaw",
            "node", "openclaw.mjs", "plugins", "registry", "--refresh",
        )  # fmt: skip

    def variables(self) -> list[str]:
        """Options that give a container the gateway's environment."""
        own = {**QUIET, "HOME": HOME, "OPENCLAW_GATEWAY_TOKEN": TOKEN}
        return [f"--env={name}={value}" for name, value in own.items()]

    def attach(self, container: Container) -> None:
        """Wait until the gateway in *container* is ready."""
        self.container = container
        container.wait_said("[gateway] ready", READY_SECONDS)
        with self.network.inside():
            wait_until(self._answers, READY_SECONDS, "the gateway was not ready")

    def turn(self, key: str, message: str) -> Turn:
        return self.turn_async(key, message).result()

    def turn_async(self, key: str, message: str) -> Future[Turn]:
        return self._pool.submit(super().turn, key, message)

    def wait_released(self, key: str, deadline: float = 60.0) -> bool:
        with self.network.inside():
            return super().wait_released(key, deadline)

    def session_file(self, key: str) -> Path | None:
        """As this machine names it."""
        inside = super().session_file(key)
        return None if inside is None else self.state / inside.relative_to(STATE)

    def log_tail(self, lines: int = 20) -> str:
        assert self.container is not None
        return "\n".join(self.container.logs().splitlines()[-lines:])

    def _config(self) -> dict[str, Any]:
        text = json.dumps(super()._config()).replace(str(self.state), STATE)
        found: dict[str, Any] = json.loads(text)
        return found

    def _give_to_node(self) -> None:
        for path in [self.state, *self.state.rglob("*")]:
            os.chown(path, NODE, NODE)
