"""Middleware that lets in only who has a key; health alone is open to all.

It closes whatever path there is, known or not, so that a new route is never open by oversight.
"""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.service.errors import Forbidden, Unauthorized
from hsoftmax.service.http.request_context import Header
from hsoftmax.service.http.responses import send_error

from .api_keys import ApiKeys

OPEN = frozenset({"/healthz/live", "/healthz/ready"})


class AuthenticationMiddleware:
    """In front of every route; not there at all where no keys are configured."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                expect_key(scope["headers"], self._keys)
            except Unauthorized as error:
                return await send_error(send, error, scope)
        await self._app(scope, receive, send)


def expect_key(headers: Iterable[Header], keys: ApiKeys) -> None:
    """Raise Unauthorized unless a request with these headers may come in."""
    if not keys.closed:
        return
    key = presented(headers)
    if key is None or not keys.opens(key):
        raise unauthorized(key)


def expect_admin(scope: Scope, keys: ApiKeys) -> None:
    """Raise Unauthorized or Forbidden unless the request has the admin key."""
    if not keys.has_admin:
        raise Forbidden("key: this service has no admin key, so that nobody may do this")
    key = presented(scope["headers"])
    if key is None:
        raise unauthorized(key)
    if not keys.is_admin(key):
        raise Forbidden("key: expected the admin key, got another one")


def presented(headers: Iterable[Header]) -> str | None:
    """The key after `Authorization: Bearer`."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("utf-8", "surrogateescape").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None


def unauthorized(key: str | None) -> Unauthorized:
    got = "none" if key is None else "one that is not known"
    return Unauthorized(f"key: expected `Authorization: Bearer <key>`, got {got}")
