"""The addresses of the live page: the page, its files, and the stream of what happens."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from guardfs.report.values import text
from guardfs.serve.guards import Guards
from guardfs.web.assets import PAGE, Asset, assets
from guardfs.web.feed import Feed
from guardfs.web.stream import Stream, wanted

MAX_READERS = 64

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: nothing from elsewhere, nothing inline, in nobody's frame."""


def routes(guards: Guards) -> list[BaseRoute]:
    """The routes of the live page of *guards*, which come and go. Who may ask is for whoever uses them to say."""
    return Page(guards).routes()


class Page:
    """Answers to browsers. readers: open streams."""

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self._feeds: dict[str, Feed] = {}
        self.readers = 0

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self._page),
            Route("/static/{name:path}", self._static),
            Route("/stream", _Streams(self)),
        ]

    async def _page(self, request: Request) -> Response:
        return _served(request, assets()[PAGE])

    async def _static(self, request: Request) -> Response:
        found = assets().get(request.path_params["name"])
        return PlainTextResponse("no such file\n", 404, HEADERS) if found is None else _served(request, found)

    def names(self) -> list[list[str]]:
        """Name and directory of the guards that there are now."""
        return [[guard.name, text(guard.readable)] for guard in self.guards]

    def feed(self, name: str) -> Feed | None:
        """What is known of the guard of that name, or, without one, of the first; None if there is none."""
        guard = self.guards.get(name) if name else next(iter(self.guards), None)
        if guard is None:
            return None
        found = self._feeds.get(guard.name)
        if found is None or found.of is not guard:
            if found is not None:
                found.close()
            found = self._feeds[guard.name] = Feed(guard)
        return found


class _Streams:
    """The stream's address, as an ASGI application: it answers by itself."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, page = Request(scope), self._page
        feed = page.feed(request.query_params.get("guard", ""))
        if request.method != "GET":
            answer: Response = PlainTextResponse("only GET\n", 405, HEADERS)
        elif feed is None:
            answer = PlainTextResponse("no such guard\n", 404, HEADERS)
        elif page.readers >= MAX_READERS:
            answer = PlainTextResponse(f"{MAX_READERS} readers already\n", 503, HEADERS)
        else:
            try:
                asked = wanted(request.query_params, request.headers.get("last-event-id"))
            except ValueError as error:
                answer = PlainTextResponse(f"{error}\n", 400, HEADERS)
            else:
                await self._stream(
                    Stream(feed, asked, page.names, page.guards.closing, _STREAM), scope, receive, send
                )
                return
        await answer(scope, receive, send)

    async def _stream(self, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        self._page.readers += 1
        try:
            await stream(scope, receive, send)
        finally:
            self._page.readers -= 1


_STREAM = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}


def _served(request: Request, found: Asset) -> Response:
    headers = {**HEADERS, "ETag": found.tag, "Cache-Control": "no-cache", "Content-Type": found.type}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers)
