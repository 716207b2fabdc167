"""The outermost layer, as plain ASGI: ids and headers, the last resort for errors, log, metrics."""

from collections.abc import Awaitable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsoftmax.service.health import Health
from hsoftmax.service.http.request_context import CLIENT_LEFT, QUIET, RequestContext, begin
from hsoftmax.service.http.responses import UNEXPECTED, send_error
from hsoftmax.service.logging import Log
from hsoftmax.service.metrics import Metrics


class RequestLogMiddleware:
    """Middleware around the whole app."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Log, health: Health) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_context = begin(scope)

        def dressed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request_context.status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(request_context)]
            return send(message)

        try:
            await self._app(scope, receive, dressed)
        except Exception as error:
            await self._last_resort(error, request_context, scope, dressed)
        finally:
            self._note(request_context, scope["method"], _route(scope))

    def _headers(self, request_context: RequestContext) -> list[tuple[bytes, bytes]]:
        headers = request_context.headers()
        if self._health.draining:  # its next request must not come down this connection
            headers.append((b"connection", b"close"))
        return headers

    async def _last_resort(
        self, error: Exception, request_context: RequestContext, scope: Scope, send: Send
    ) -> None:
        self._log.error("internal_error", exc_info=error, request_id=request_context.request_id)
        if not request_context.status:
            await send_error(send, UNEXPECTED, scope)

    def _note(self, request_context: RequestContext, method: str, route: str) -> None:
        """Log and count a request that is done."""
        seconds = perf_counter() - request_context.started
        status = request_context.status or CLIENT_LEFT
        code = request_context.code if request_context.status else "client_left"
        self._metrics.request(route, request_context.model, status, code, seconds)
        say = self._log.debug if route in QUIET else self._log.info
        say(
            "request",
            request_id=request_context.request_id,
            method=method,
            route=route,
            model=request_context.model,
            status=status,
            code=code,
            rows=request_context.rows,
            ms=int(seconds * 1e6) / 1e3,
        )


def _route(scope: Scope) -> str:
    path: str = getattr(scope.get("route") or scope.get("endpoint"), "path", "unmatched")
    return path
