"""Pictures of the live page for the documentation: a real OpenClaw gateway under a guard that enforces.

    python -m tests.gateway.live_pictures docs/images

Several sessions talk; into their turns come a script that appends, a backup tool, a touch, and one writer below the
mount, whom no guard can stage: that turn is lost. The pictures are taken while a reply streams and a line waits for it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.gateway import foreign
from tests.gateway.gateway import Gateway
from tests.gateway.install import install
from tests.gateway.model import ModelServer
from tests.support.browser import Browser, browser
from tests.support.guard import Guard
from tests.support.serving import ANYWHERE, Server

CHAT = "agent:main:feishu:direct:ou_7d8a61c2"
OTHERS = ("agent:main:telegram:direct:42420815", "agent:main:slack:channel:c04ops", "agent:main:webchat:main")
HOWS = ("touch", "replace", "append")
SIZE = (1440, 900)


class Run:
    """The gateway and what is said to it."""

    def __init__(self, gateway: Gateway, below: int) -> None:
        self.gateway = gateway
        self._below = below
        self._turns = 0

    def turn(self, key: str, how: str = "", seconds: float = 2) -> None:
        """One turn; *how*: what comes in while the reply streams."""
        self._turns += 1
        word = f"question-{self._turns}."
        reply = self.gateway.turn_async(key, f"{word} [say=answer] [seconds={seconds}]")
        self.gateway.model.wait_streaming(word)
        transcript = self.gateway.session_file(key)
        assert transcript is not None
        if how == "below":
            file = os.open(transcript.name, os.O_WRONLY | os.O_APPEND, dir_fd=self._below)
            os.write(
                file, b'{"type":"custom","id":"c0ffee01","parentId":null,"customType":"note","data":{}}\n'
            )
            os.close(file)
        elif how:
            foreign.change(transcript, how)
        print(f"{key}: {how or 'nobody'}: {reply.result().text[:60]}", flush=True)

    def picture(self, window: Browser, target: Path) -> None:
        """Of the page, while a reply streams and a line waits."""
        word = f"last-{target.stem}."
        reply = self.gateway.turn_async(CHAT, f"{word} [say=answer] [seconds=6]")
        self.gateway.model.wait_streaming(word)
        transcript = self.gateway.session_file(CHAT)
        assert transcript is not None
        foreign.change(transcript, "append")
        window.wait(lambda: "staged" in "".join(window.texts("#list [aria-selected=true] .branch")))
        window.settle()
        target.write_bytes(window.screenshot())
        reply.result()
        window.wait(lambda: window.texts("#list [aria-selected=true] .branch") == [""])


def main() -> None:
    images = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="guardfs-live-") as name, ModelServer() as model:
        place = Path(name)
        gateway = Gateway(install(), place / "home/.openclaw", model)
        below = os.open(gateway.sessions, os.O_RDONLY | os.O_DIRECTORY)
        guard = Guard(gateway.sessions, place / "guard", "--policy", "openclaw", "--mode", "enforce")
        guard.start()
        server = Server(place / "serve.out", "--web", ANYWHERE, gateway.sessions)
        try:
            with browser() as window:
                gateway.start()
                talk(Run(gateway, below), window, server.url("page"), images)
        finally:
            gateway.stop()
            server.destroy()
            os.close(below)
            guard.destroy()


def talk(run: Run, window: Browser, page: str, images: Path) -> None:
    """All that happens."""
    for key, how in zip(OTHERS, HOWS, strict=True):
        run.turn(key)
        run.turn(key, how)
    run.turn(CHAT)
    for how in ("append", "below", "replace", "touch"):
        run.turn(CHAT, how)
    window.visit(f"{page}/#session={CHAT}", *SIZE)
    window.click("#spans button:nth-child(2)")
    window.wait(lambda: window.all("#spans button:nth-child(2)[aria-pressed=true]"))
    window.wait(lambda: window.all("#picture .check"))
    run.picture(window, images / "live.png")
    window.media(scheme="dark")
    run.picture(window, images / "live-dark.png")


if __name__ == "__main__":
    main()
