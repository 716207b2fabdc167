"""Outermost ASGI middleware. It creates the request context and adds the response headers.

It logs and counts each request, and turns an unhandled exception into a response with status 500.
"""

from collections.abc import Awaitable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsoftmax.service.errors import Overloaded, RateLimited
from hsoftmax.service.health import Health
from hsoftmax.service.http.request_context import (
    CLIENT_LEFT,
    PROBE_PATHS,
    RequestContext,
    create_request_context,
)
from hsoftmax.service.http.responses import UNEXPECTED, send_error
from hsoftmax.service.logging import Log
from hsoftmax.service.metrics import Metrics

from .rejection_log import RejectionLog

_REJECTED = frozenset({Overloaded.code, RateLimited.code})
_MAX_MODEL_CHARS = 100  # of a name in an audit line, as a client may write any name


class RequestRecorder:
    """Logs and counts finished requests."""

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self._rejections = RejectionLog(log)

    def record(
        self, request_context: RequestContext, method: str, route: str, *, is_probe: bool = False
    ) -> None:
        """Log and count a finished request; a probe is logged at debug."""
        seconds = perf_counter() - request_context.started
        status = request_context.status or CLIENT_LEFT
        code = request_context.code if request_context.status else "client_left"
        model, version = request_context.model, request_context.version
        self._metrics.request(route, model, version, status, code, seconds)
        if (key_name := request_context.key_name) is not None:
            self._metrics.key_request(key_name, status)
        if request_context.admin_model is not None:
            self._audit(request_context, method, route, status, code)
        is_rejected = code in _REJECTED
        if is_rejected:
            self._rejections.add(route)
        write_event = self._log.debug if is_rejected or is_probe else self._log.info
        write_event(
            "request",
            request_id=request_context.request_id,
            method=method,
            route=route,
            model=model,
            version=version,
            status=status,
            code=code,
            rows=request_context.rows,
            **({} if key_name is None else {"key": key_name}),
            ms=int(seconds * 1e6) / 1e3,
        )

    def _audit(
        self, request_context: RequestContext, method: str, route: str, status: int, code: str
    ) -> None:
        """Log one line of an admin call, also of one whose key was refused."""
        self._log.info(
            "audit",
            request_id=request_context.request_id,
            key=request_context.key_name,
            method=method,
            route=route,
            model=(request_context.admin_model or "")[:_MAX_MODEL_CHARS],
            status=status,
            outcome=code,
        )


class RequestLogMiddleware:
    """ASGI middleware around all other layers."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Log, health: Health) -> None:
        self._app = app
        self._log = log
        self._recorder = RequestRecorder(metrics, log)
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_context = create_request_context(scope)

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request_context.status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(request_context)]
            return send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            await self._handle_unexpected(error, request_context, scope, send_with_headers)
        finally:
            route = _route(scope)
            is_probe = route in PROBE_PATHS
            self._recorder.record(request_context, scope["method"], route, is_probe=is_probe)

    def _headers(self, request_context: RequestContext) -> list[tuple[bytes, bytes]]:
        headers = request_context.response_headers()
        if self._health.draining:  # the client must use another connection for its next request
            headers.append((b"connection", b"close"))
        return headers

    async def _handle_unexpected(
        self, error: Exception, request_context: RequestContext, scope: Scope, send: Send
    ) -> None:
        self._log.error("internal_error", exc_info=error, request_id=request_context.request_id)
        if not request_context.status:
            await send_error(send, UNEXPECTED, scope)


def _route(scope: Scope) -> str:
    path: str = getattr(scope.get("route") or scope.get("endpoint"), "path", "unmatched")
    return path
