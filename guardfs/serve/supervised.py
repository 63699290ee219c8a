"""The same server as a child of the supervisor: `python -m guardfs.serve.supervised`.

Its standard input says what to serve where (a `Plan`), and then, a line each time, which guards there are. It ends when
that ends, for then the supervisor is gone. An address that cannot be had now is asked for again and again: whatever
becomes of it, the guards go on.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

import trio

from guardfs.mount import libc
from guardfs.serve.addresses import Address, listen
from guardfs.serve.guards import Guards
from guardfs.serve.plan import Known, decode_guards, decode_plan
from guardfs.serve.rights import lessen, stand_back
from guardfs.serve.server import cannot_listen, pages, serve_one, until_told
from guardfs.supervise.say import say

AGAIN_SECONDS = 2.0
"""Between two tries to have an address."""


def _try(address: Address) -> socket.socket | OSError:
    try:
        return listen(address)
    except OSError as error:
        return error


async def serve_when_possible(
    guards: Guards,
    address: Address,
    what: list[str],
    token: bytes | None,
    stop: trio.Event,
    opened: socket.socket | OSError,
) -> None:
    """Serve *what* at *address* until *stop*, from the moment on at which it can be had. opened: how the first try
    ended."""
    if isinstance(opened, OSError):
        names = " and ".join("the page" if each == "web" else each for each in what)
        say(f"no {names}: {cannot_listen(address, opened)}; tried again meanwhile, and the guard goes on")
    while isinstance(opened, OSError):
        with trio.move_on_after(AGAIN_SECONDS):
            await stop.wait()
            return
        opened = _try(address)
    say(f"serving {pages(what, opened)}")
    await serve_one(guards, opened, what, token, stop)


async def told(descriptor: int, guards: Guards, known: list[Known]) -> None:
    """Take in which guards there are, until the supervisor is gone."""
    rest = b""
    async with trio.lowlevel.FdStream(descriptor) as stream:
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                known[:] = decode_guards(line)
                guards.look()


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="guardfs[%(process)d] %(levelname)s: %(message)s")
    try:
        libc.prctl(libc.PR_SET_NAME, b"guardfs-serve")
    except OSError:
        pass
    with open(0, "rb", buffering=0, closefd=False) as channel:  # unbuffered: what follows is read by `told`
        plan = decode_plan(channel.readline())
        known = decode_guards(channel.readline())
    opened = {address: _try(address) for address in plan.addresses()}  # a port below 1024 may need root
    stand_back()
    lessen()
    guards = Guards(lambda: known)

    async def work(stop: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for address, what in plan.addresses().items():
                begin = (guards, address, what, plan.token, stop, opened.pop(address))
                nursery.start_soon(serve_when_possible, *begin)

    async def parent() -> None:
        await told(os.dup(0), guards, known)

    trio.run(until_told, guards, work, parent)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a thread that waits for a daemon that hangs must not keep the process
