"""Requires an API key on every path except the health checks and the files of the page.

Unknown paths need a key too, so that a new route cannot be public by oversight.
"""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.service.errors import Forbidden, Unauthorized
from hsoftmax.service.http.request_context import PROBE_PATHS, Header
from hsoftmax.service.http.responses import send_error
from hsoftmax.service.page import PAGE_PATHS

from .api_keys import ApiKeys

HEALTH_PATHS = PROBE_PATHS - {"/metrics"}
PUBLIC_PATHS = HEALTH_PATHS | PAGE_PATHS


class AuthenticationMiddleware:
    """ASGI middleware in front of every route. An app without configured keys does not have it."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, health_route: str | None = None) -> None:
        self._app = app
        self._keys = keys
        self._public = PUBLIC_PATHS | ({health_route} if health_route else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            try:
                expect_key(scope["headers"], self._keys)
            except Unauthorized as error:
                return await send_error(send, error, scope)
        await self._app(scope, receive, send)


def expect_key(headers: Iterable[Header], keys: ApiKeys) -> None:
    """Raise Unauthorized if a key is required and the headers have no valid one."""
    if not keys.required:
        return
    key = bearer_key(headers)
    if key is None or not keys.is_valid(key):
        raise unauthorized(key)


def expect_admin(scope: Scope, keys: ApiKeys) -> None:
    """Raise Unauthorized or Forbidden if the request does not have the admin key."""
    if not keys.has_admin:
        raise Forbidden("key: this service has no admin key, so that nobody may do this")
    key = bearer_key(scope["headers"])
    if key is None:
        raise unauthorized(key)
    if not keys.is_admin(key):
        raise Forbidden("key: expected the admin key, got another one")


def bearer_key(headers: Iterable[Header]) -> str | None:
    """Return the key after `Authorization: Bearer`, or None."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("utf-8", "surrogateescape").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None


def unauthorized(key: str | None) -> Unauthorized:
    got = "none" if key is None else "one that is not known"
    return Unauthorized(f"key: expected `Authorization: Bearer <key>`, got {got}")
