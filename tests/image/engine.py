"""The images that `scripts/image` builds, and containers of them: podman on a storage of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.guard import ROOT
from tests.support.waiting import wait_for

BUILD_SECONDS = 1500.0
"""debootstrap, three images and OpenClaw from the npm registry: three minutes where the network is quick."""

COMMAND_SECONDS = 180.0


class EngineError(RuntimeError):
    """podman, or a program in a container, ended with an error; carries what it said."""


class Engine:
    """Builds into *storage*, which is removed by `close` with all that runs or is mounted there."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.build_seconds = 0.0

    def build(self) -> Engine:
        """Run the script as anybody would."""
        began = time.monotonic()
        self._script("--example")
        self.build_seconds = time.monotonic() - began
        return self

    def close(self) -> None:
        self._script("--remove")
        assert not self.storage.exists(), f"{self.storage} was left"

    def _script(self, *options: str) -> None:
        done = subprocess.run(
            [str(ROOT / "scripts/image"), *options, "--storage", str(self.storage)],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            env={key: value for key, value in os.environ.items() if key != "PYTHON"},
        )
        if done.returncode:
            raise EngineError(f"scripts/image {' '.join(options)}: {done.stderr}")

    def run(
        self, *words: str, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``podman WORDS``. text: its standard input."""
        done = subprocess.run(
            [str(self.storage / "podman"), *words],
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if check and done.returncode:
            raise EngineError(
                f"podman {' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done

    def once(self, image: str, *words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """A container that runs to its end and is removed; no network."""
        return self.run("run", "--rm", "--network=none", *options, image, *words, check=False)

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image or a container."""
        found: dict[str, Any] = json.loads(self.run("inspect", name).stdout)[0]
        return found

    def size(self, image: str) -> int:
        """Bytes of its layers."""
        return int(self.inspect(image)["Size"])


class Container:
    """One container, from *image* with *options* of `podman run` and *words* for its entry point."""

    def __init__(
        self, engine: Engine, name: str, image: str, options: Sequence[str], words: Sequence[str] = ()
    ) -> None:
        self.engine = engine
        self.name = name
        engine.run("create", f"--name={name}", *options, image, *words)

    def start(self) -> Container:
        self.engine.run("start", self.name)
        return self

    @property
    def state(self) -> dict[str, Any]:
        """``Running``, ``ExitCode``, ``Pid`` ..."""
        found: dict[str, Any] = self.engine.inspect(self.name)["State"]
        return found

    def exec(
        self, *words: str, user: str = "root", check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Another process in the container, as *user*."""
        return self.engine.run(
            "exec", "--interactive", f"--user={user}", self.name, *words, check=check, text=text
        )

    def logs(self) -> str:
        """What its first process and those that share its output have said, both streams."""
        done = self.engine.run("logs", self.name, check=False)
        return done.stdout + done.stderr

    def wait_said(self, text: str, seconds: float = 120.0) -> None:
        """Until *text* stands in its logs; `EngineError` with them if it ends before, or says nothing of the kind."""

        def look() -> bool:
            if text in self.logs():
                return True
            if not self.state["Running"]:
                raise EngineError(f"{self.name} ended before it said {text!r}: {self.logs()[-3000:]}")
            return False

        try:
            wait_for(look, text, seconds)
        except TimeoutError as error:
            raise EngineError(f"{self.name}: {error}: {self.logs()[-3000:]}") from error

    def kill(self, signal: str) -> None:
        """Send *signal* to its first process."""
        self.engine.run("kill", f"--signal={signal}", self.name)

    def wait(self, seconds: float = 90.0) -> int:
        """Until it has ended; its exit status."""
        wait_for(lambda: not self.state["Running"], f"{self.name} to end", seconds)
        return int(self.state["ExitCode"])

    def remove(self) -> None:
        """End and forget it; also when it is gone already."""
        self.engine.run("rm", "--force", "--time=5", self.name, check=False)
