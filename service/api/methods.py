"""Answers HEAD and OPTIONS on every path with GET, as load balancers and monitors send them.

HEAD gets the response of GET without its body (RFC 9110, 9.3.2), OPTIONS gets 204 and `Allow`.
"""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Methods:
    """ASGI layer around FastAPI, whose routes name neither HEAD nor OPTIONS."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"]:
            case "HEAD":
                await self._answer_head(scope, receive, send)
            case "OPTIONS" if "OPTIONS" in allowed_methods(self._routes, scope):
                await _send_allowed(send, allow_header(self._routes, scope))
            case _:
                await self._app(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer like GET. It changes the scope itself, so that log and metrics see the route.

        The server gets the method back with the response: it lets only HEAD have no body.
        """

        async def send_without_body(message: Message) -> None:
            scope["method"] = "HEAD"
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if "GET" in allowed_methods(self._routes, scope):
            scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_without_body)
        finally:
            scope["method"] = "HEAD"


async def _send_allowed(send: Send, allowed: str) -> None:
    headers = [(b"allow", allowed.encode())]  # a 204 has no content-length
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def allow_header(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Return the value of `Allow` for the path of a request; empty if no route has the path."""
    return ", ".join(allowed_methods(routes, scope))


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """Return every method that the path of a request supports, in alphabetical order."""
    methods: set[str] = set()
    for route in routes:
        if route.matches({**scope, "type": "http"})[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods | {"HEAD", "OPTIONS"} if "GET" in methods else methods)
