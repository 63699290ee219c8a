"""The daemon's end of the line to its supervisor: signs of life one way, the wish for another daemon both ways."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

import trio

from guardfs.mount.config import DaemonConfig, Message, parse, send

log = logging.getLogger("guardfs")

_LONG = 1 << 20
_LONG_SECONDS = 10
"""A branch of so many bytes may take so many seconds to be rebased, and a second more for each time as many."""


class Line:
    """handing: the supervisor wants this daemon to let another one take over. keeps: whether that one would find what
    it needs. served: requests answered so far."""

    def __init__(self, config: DaemonConfig, keeps: Callable[[], bool], served: Callable[[], int]) -> None:
        self._config = config
        self._keeps = keeps
        self._served = served
        self.handing = False

    def tell(self, message: Message) -> None:
        """Say something. Never raises."""
        try:
            send(self._config.control_fd, message)
        except OSError:
            log.warning("the supervisor is gone; the mount goes on")

    def busy(self, size: int) -> None:
        """A branch of *size* bytes is rebased now: what takes long, and answers nobody meanwhile, is said before."""
        if size > _LONG:
            self.tell(Message("busy", str(_LONG_SECONDS + size // _LONG)))

    def supervised(self) -> bool:
        """Whether the supervisor lives."""
        return os.getppid() == self._config.supervisor_pid

    def possible(self) -> bool:
        """Whether another daemon could be started here, and take over."""
        return self.supervised() and self._keeps() and self._config.agreement.can_resend

    def ask(self) -> None:
        """An operator wants another daemon."""
        self.tell(Message("upgrade"))

    async def beat(self) -> None:
        """Signs of life: the loop turns, and so many requests were answered."""
        while self._config.heartbeat:
            try:
                send(self._config.control_fd, Message("alive", str(self._served())))
            except BlockingIOError:  # the supervisor was stopped, and does not read
                pass
            except OSError:
                return
            await trio.sleep(self._config.heartbeat)

    async def listen(self, stop: Callable[[], None]) -> None:
        """Wait for the supervisor's death, or its word that another daemon is to take over: then *stop*."""
        with socket.socket(fileno=os.dup(self._config.control_fd)) as control:
            control.setblocking(False)
            while True:
                await trio.lowlevel.wait_readable(control)
                try:
                    data = control.recv(4096)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    log.warning("the supervisor is gone; the mount goes on until it is unmounted")
                    return
                if any(parse(line).kind == "hand" for line in data.splitlines()):
                    self.handing = True
                    stop()
