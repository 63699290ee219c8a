"""Which address answers what."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from guardfs.serve.addresses import Address
from guardfs.serve.auth import Doorkeeper
from guardfs.serve.guards import Guards


def metrics_routes(guards: Guards) -> list[BaseRoute]:
    """What is served at ``--metrics``."""

    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"alive": True})

    return [Route("/healthz", healthz)]


def web_routes(guards: Guards) -> list[BaseRoute]:
    """What is served at ``--web``."""
    from guardfs.web.routes import routes  # only where it is asked for

    return routes(guards)


def application(routes: list[BaseRoute], address: Address, token: bytes | None) -> ASGIApp:
    """*routes*, behind the doorkeeper of *address*."""
    return Doorkeeper(Starlette(routes=routes), address, token)
