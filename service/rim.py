"""The outermost layer, as plain ASGI: ids and headers, the last resort for errors, log, metrics."""

from collections.abc import Awaitable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import UNFORESEEN, send_error
from .core import Core
from .exchange import CLIENT_LEFT, QUIET, Exchange, begin


class Rim:
    """Middleware around the whole app."""

    def __init__(self, app: ASGIApp, core: Core) -> None:
        self._app = app
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = begin(scope)

        def dressed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(exchange)]
            return send(message)

        try:
            await self._app(scope, receive, dressed)
        except Exception as error:
            await self._last_resort(error, exchange, scope, dressed)
        finally:
            note(self._core, exchange, scope["method"], _route(scope))

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        headers = exchange.headers()
        if self._core.health.draining:  # its next request must not come down this connection
            headers.append((b"connection", b"close"))
        return headers

    async def _last_resort(
        self, error: Exception, exchange: Exchange, scope: Scope, send: Send
    ) -> None:
        self._core.log.error("internal_error", error, request_id=exchange.request_id)
        if not exchange.status:
            await send_error(send, UNFORESEEN, scope)


def note(core: Core, exchange: Exchange, method: str, route: str) -> None:
    """Log and count a request that is done."""
    seconds = perf_counter() - exchange.started
    status = exchange.status or CLIENT_LEFT
    code = exchange.code if exchange.status else "client_left"
    core.metrics.request(route, exchange.model, status, code, seconds)
    say = core.log.debug if route in QUIET else core.log.info
    say(
        "request",
        request_id=exchange.request_id,
        method=method,
        route=route,
        model=exchange.model,
        status=status,
        code=code,
        rows=exchange.rows,
        ms=int(seconds * 1e6) / 1e3,
    )


def _route(scope: Scope) -> str:
    path: str = getattr(scope.get("route") or scope.get("endpoint"), "path", "unmatched")
    return path
