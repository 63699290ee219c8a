"""A guard that enforces, the page over it, and writers: what the live page is looked at with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.guard import Guard, environment
from tests.support.mortal import POLICY
from tests.support.serving import ANYWHERE, Server
from tests.support.waiting import wait_for


class Scene:
    """*place*: a fresh directory. Ends with `end`, whatever happened."""

    def __init__(self, place: Path) -> None:
        directory = place / "sessions"
        directory.mkdir()
        policy = place / "policy.toml"
        policy.write_text(POLICY.replace("[transcripts]", '[fence]\nlinger = "0s"\n[transcripts]', 1))
        policy.chmod(0o644)
        self._below = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.guard = Guard(directory, place / "beside", "--policy", str(policy), "--mode", "enforce")
        self._started: list[subprocess.Popen[bytes]] = []
        self.guard.start()
        self.server = Server(place / "serve.out", "--web", ANYWHERE, directory)
        self.page = self.server.url("page")

    def begin(self, *stories: str) -> subprocess.Popen[bytes]:
        """Turns of the gateway (see `tests.support.mortal`), and what comes in while they stream."""
        command = [sys.executable, "-m", "tests.support.mortal", str(self.guard.directory), *stories]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
        self._started.append(process)
        return process

    def play(self, *stories: str) -> list[str]:
        """The same until they have ended; which turns died."""
        return self.ended(self.begin(*stories))

    def ended(self, process: subprocess.Popen[bytes]) -> list[str]:
        """Waits for the end of turns; which of them died."""
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        died: list[str] = json.loads(said)
        return died

    def lose(self) -> None:
        """A turn of the first session that dies: somebody writes below the mount, where no guard can stage it."""
        process = self.begin("quiet")
        relied = wait_for(lambda: self.guard.status()["fences"]["list"], "a fence")
        name = relied[0]["path"]
        target = os.open(name, os.O_WRONLY | os.O_APPEND, dir_fd=self._below)
        os.write(target, b'{"type":"custom","id":"b1","parentId":null,"customType":"note","data":{}}\n')
        os.close(target)
        assert self.ended(process) == ["quiet"]

    def end(self) -> None:
        """Ends all of it."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        os.close(self._below)
        self.server.destroy()
        self.guard.destroy()
