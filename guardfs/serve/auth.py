"""Who is let in: programs of this machine; from elsewhere, who has the token.

Without a token an address other than loopback is refused at the start (`guardfs.serve.plan`), and a request must name
this machine in its Host header: a page of the web that has its own name resolved to 127.0.0.1 (DNS rebinding) names
another. With a token every request needs it: as ``Authorization: Bearer``, or as a cookie, which one visit with
``?token=`` sets.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardfs.serve.addresses import Address

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
"""Sent with each answer that does not say otherwise: nothing here is another site's business."""


class Doorkeeper:
    """An ASGI application before *app* that lets in who may, and gives every answer the headers that browsers need.

    address: where it is bound.
    """

    def __init__(self, app: ASGIApp, address: Address, token: bytes | None) -> None:
        self._app = app
        self._token = token
        self._host = address.host
        self._cookie = f"guardfs-{address.port}"  # cookies do not tell the ports of a host apart
        self._pass = hmac.digest(token, b"guardfs cookie", "sha256").hex() if token is not None else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no websocket here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(Request(scope))
        await (self._app if answer is None else answer)(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        """What is answered in the place of what was asked for; None: nothing stands against it."""
        if self._token is None:
            host = request.headers.get("host", "")
            if not _is_here(host, self._host):
                return PlainTextResponse(f"{host!r}: no name of this machine's loopback address\n", 403)
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self._token):
            return None
        if _same(request.cookies.get(self._cookie, ""), self._pass.encode()):
            return None
        visit = request.query_params.get("token")
        if visit is not None and request.method == "GET" and _same(visit, self._token):
            return self._welcome(request)
        return PlainTextResponse(
            "a token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN once\n",
            401,
            {"WWW-Authenticate": 'Bearer realm="guardfs"'},
        )

    def _welcome(self, request: Request) -> Response:
        """The same page again, with a cookie in the place of the token: an address is shown, kept and copied."""
        kept = [(name, value) for name, value in parse_qsl(request.url.query) if name != "token"]
        path = "/" + request.url.path.lstrip("/")  # "//elsewhere/" would be another host
        answer = RedirectResponse(path + (f"?{urlencode(kept)}" if kept else ""), 303)
        # lax: a link to the page in a chat or mail works, and nothing here changes anything
        answer.set_cookie(self._cookie, self._pass, httponly=True, samesite="lax")
        return answer


def _same(given: str, wanted: bytes) -> bool:
    """In a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted)


def _is_here(host: str, bound: str) -> bool:
    """Whether the value *host* of a Host header names this machine's loopback. Its port may be another: tunnels have
    one of their own."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]+)?", host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    if name in ("localhost", bound):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
