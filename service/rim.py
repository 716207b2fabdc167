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
        self._log = core.log
        self._metrics = core.metrics
        self._health = core.health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = begin(scope)
        started = perf_counter()

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
            self._note(exchange, scope, perf_counter() - started)

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        headers = exchange.headers()
        if self._health.draining:  # a client must not send its next request down this connection
            headers.append((b"connection", b"close"))
        return headers

    async def _last_resort(
        self, error: Exception, exchange: Exchange, scope: Scope, send: Send
    ) -> None:
        self._log.error("internal_error", error, request_id=exchange.request_id)
        if not exchange.status:
            await send_error(send, UNFORESEEN, scope)

    def _note(self, exchange: Exchange, scope: Scope, seconds: float) -> None:
        route = getattr(scope.get("route") or scope.get("endpoint"), "path", "unmatched")
        status = exchange.status or CLIENT_LEFT
        code = exchange.code if exchange.status else "client_left"
        self._metrics.request(route, exchange.model, status, code, seconds)
        say = self._log.debug if route in QUIET else self._log.info
        say(
            "request",
            request_id=exchange.request_id,
            method=scope["method"],
            route=route,
            model=exchange.model,
            status=status,
            code=code,
            rows=exchange.rows,
            ms=int(seconds * 1e6) / 1e3,
        )
