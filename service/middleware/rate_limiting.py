"""Counts each request against the rate limits of the service and of its API key.

Health checks, the metrics, the page and admin calls are not counted: a service at its limit can
still be watched and changed.
"""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.service.access.rate_limits import RateLimits
from hsoftmax.service.errors import RateLimited
from hsoftmax.service.http.request_context import RequestContext, request_context_of
from hsoftmax.service.http.responses import send_error

from .authentication import PUBLIC_PATHS, required_scope

_UNLIMITED_PATHS = PUBLIC_PATHS | {"/metrics"}


class RateLimitMiddleware:
    """ASGI middleware behind authentication, which finds the key."""

    def __init__(self, app: ASGIApp, limits: RateLimits, health_route: str | None = None) -> None:
        self._app = app
        self._limits = limits
        self._unlimited = _UNLIMITED_PATHS | ({health_route} if health_route else set())

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope["path"]
        if path not in self._unlimited and required_scope(scope["method"], path) != "admin":
            try:
                take_request(request_context_of(scope), self._limits)
            except RateLimited as error:
                return send_error(send, error, scope)
        return self._app(scope, receive, send)


def take_request(request_context: RequestContext, limits: RateLimits) -> None:
    """Store the quota of a request in its context, and take the request from it.

    Raises:
        RateLimited: a limit is reached.
    """
    request_context.quota = limits.quota(request_context.key)
    if request_context.quota is not None:
        request_context.quota.take_request()
