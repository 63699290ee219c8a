"""The routes of the page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from guardfs.serve.guards import Guards


def routes(guards: Guards) -> list[BaseRoute]:
    """What is served at ``--web``: the guarded directories, a line each."""

    async def index(request: Request) -> PlainTextResponse:
        lines = []
        for guard in guards:
            status = await guard.status()
            lines.append(f"{guard.sessions}: {status['policy']['mode'] if status else guard.trouble}\n")
        return PlainTextResponse("".join(lines))

    return [Route("/", index)]
