"""Serves addresses until it is told to stop, with hypercorn's trio worker."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable

import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.routing import BaseRoute

from guardfs.errors import GuardError
from guardfs.serve.addresses import Address, bound, listen
from guardfs.serve.app import application, metrics_routes, web_routes
from guardfs.serve.guards import Guards
from guardfs.serve.plan import Plan

log = logging.getLogger("guardfs.serve")

GRACE_SECONDS = 2.0
"""How long answers under way may still take at the end."""

_HARD_SECONDS = 2 * GRACE_SECONDS
"""When the process ends whatever still waits: a client that reads no more, a daemon that hangs."""

_KEEP_ALIVE_SECONDS = 75.0
"""Longer than the minute after which Prometheus comes again."""


def cannot_listen(address: Address, error: OSError) -> GuardError:
    """Why nobody can be served at *address*."""
    reasons = {
        errno.EADDRINUSE: ("is in use", "name another port, or end what has it (ss -ltnp)"),
        errno.EADDRNOTAVAIL: ("is no address of this machine", "name one that it has (ip addr)"),
        errno.EACCES: ("needs rights that this user does not have", "name a port above 1023"),
    }
    what, mend = reasons.get(error.errno or 0, (error.strerror or str(error), "name another address"))
    return GuardError(f"{address} {what}", mend)


def open_all(plan: Plan) -> list[tuple[socket.socket, list[str]]]:
    """Listen on every address of *plan*; GuardError if one cannot be had."""
    opened: list[tuple[socket.socket, list[str]]] = []
    for address, what in plan.addresses().items():
        try:
            opened.append((listen(address), what))
        except OSError as error:
            for listener, _ in opened:
                listener.close()
            raise cannot_listen(address, error) from None
    return opened


def pages(what: list[str], listener: socket.socket) -> str:
    """What *listener* serves, in words with addresses."""
    where = {"metrics": "metrics on http://{}/metrics", "web": "the page on http://{}/"}
    return " and ".join(where[each].format(bound(listener)) for each in what)


def routes_of(what: list[str], guards: Guards) -> list[BaseRoute]:
    """The routes of an address that serves *what*."""
    made = {"metrics": metrics_routes, "web": web_routes}
    return [route for each in what for route in made[each](guards)]


async def serve(
    guards: Guards, opened: list[tuple[socket.socket, list[str]]], token: bytes | None, stop: trio.Event
) -> None:
    """Serve what listens already, until *stop*."""
    async with trio.open_nursery() as nursery:
        for listener, what in opened:
            nursery.start_soon(serve_one, guards, listener, what, token, stop)


async def serve_one(
    guards: Guards, listener: socket.socket, what: list[str], token: bytes | None, stop: trio.Event
) -> None:
    """Serve *what* on one listener."""
    app = application(routes_of(what, guards), bound(listener), token)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = log
    config.graceful_timeout = GRACE_SECONDS
    config.keep_alive_timeout = _KEEP_ALIVE_SECONDS
    config.include_server_header = False
    await hypercorn.trio.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")  # type: ignore[arg-type]


async def until_told(
    guards: Guards,
    work: Callable[[trio.Event], Awaitable[None]],
    *others: Callable[[], Awaitable[None]],
) -> None:
    """Run *work* until it ends, given an event that SIGTERM, SIGINT or the end of one of *others* sets."""
    stop = trio.Event()

    def end() -> None:
        if stop.is_set():
            return
        stop.set()
        guards.closing.set()
        hard = threading.Timer(_HARD_SECONDS, os._exit, (0,))
        hard.daemon = True
        hard.start()

    async def signals() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for number in received:
                if number != signal.SIGHUP:
                    end()

    async def wait(other: Callable[[], Awaitable[None]]) -> None:
        await other()
        end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(signals)
        for other in (guards.keep, *others):
            nursery.start_soon(wait, other)
        await work(stop)
        nursery.cancel_scope.cancel()
