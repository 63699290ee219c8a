"""Which address answers what."""

from __future__ import annotations

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from guardfs.serve.addresses import Address
from guardfs.serve.auth import Doorkeeper
from guardfs.serve.guards import Guard, Guards
from guardfs.serve.health import notes, reasons
from guardfs.serve.metrics import Seen, exposition


async def see(guards: Guards) -> list[Seen]:
    """All guards now, asked at once: one that hangs keeps the others from nothing."""
    found: dict[str, Seen] = {}

    async def ask(guard: Guard) -> None:
        status = await guard.status()
        counters = await guard.counters() if status is not None else None
        found[guard.sessions] = Seen(guard.readable, status, counters)

    async with trio.open_nursery() as nursery:
        for guard in guards:
            nursery.start_soon(ask, guard)
    return [found[path] for path in sorted(found)]


def metrics_routes(guards: Guards) -> list[BaseRoute]:
    """What is served at ``--metrics``."""

    async def metrics(request: Request) -> Response:
        text, content_type = exposition(await see(guards), request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    async def healthz(request: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(request: Request) -> Response:
        await see(guards)
        found = []
        for guard in guards:
            status = await guard.status()
            why = reasons(status, guard.trouble)
            told = {"sessions": guard.readable, "ready": not why, "reasons": why, "notes": notes(status)}
            found.append(told)
        ready = bool(found) and all(each["ready"] for each in found)
        body = {"ready": ready, "guards": found} | ({} if found else {"reasons": ["nothing is guarded"]})
        return JSONResponse(body, 200 if ready else 503)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


def web_routes(guards: Guards) -> list[BaseRoute]:
    """What is served at ``--web``."""
    from guardfs.web.routes import routes  # only where it is asked for

    return routes(guards)


def application(routes: list[BaseRoute], address: Address, token: bytes | None) -> ASGIApp:
    """*routes*, behind the doorkeeper of *address*."""
    return Doorkeeper(Starlette(routes=routes), address, token)
