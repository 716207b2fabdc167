"""Requires an API key on every path except the health checks and the files of the page.

Unknown paths need a key too, so that a new route cannot be public by oversight. The key must have
the scope of the path. Its models are checked where a request finds its bundle, in
`RequestContext.set_model`.
"""

import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.service.access.api_key import KeyScope
from hsoftmax.service.access.api_keys import ApiKeys
from hsoftmax.service.errors import Forbidden, Unauthorized
from hsoftmax.service.http.openai_errors import is_openai_path
from hsoftmax.service.http.request_context import PROBE_PATHS, RequestContext, request_context_of
from hsoftmax.service.http.responses import send_error
from hsoftmax.service.page import PAGE_PATHS

HEALTH_PATHS = PROBE_PATHS - {"/metrics"}
PUBLIC_PATHS = HEALTH_PATHS | PAGE_PATHS

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN_PATH = re.compile(
    r"/v1/models/([^/]+)/(?:reload|unload|rollout|rollback)"
    r"|/v2/repository/models/([^/]+)/(?:un)?load"
)


class AuthenticationMiddleware:
    """ASGI middleware in front of every route. An app without configured keys does not have it."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, health_route: str | None = None) -> None:
        self._app = app
        self._keys = keys
        self._public = PUBLIC_PATHS | ({health_route} if health_route else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            wanted = required_scope(scope["method"], scope["path"])
            request_context = request_context_of(scope)
            if wanted == "admin":
                request_context.admin_model = _admin_model(scope["path"])
            try:
                authenticate(request_context, self._keys, wanted)
            except (Unauthorized, Forbidden) as error:
                return await send_error(send, error, scope)
        await self._app(scope, receive, send)


def required_scope(method: str, path: str) -> KeyScope:
    """Return the scope that a key needs for a request."""
    if is_openai_path(path):
        return "batch"
    if method not in _READING_METHODS and _ADMIN_PATH.fullmatch(path):
        return "admin"
    return "read"


def _admin_model(path: str) -> str:
    match = _ADMIN_PATH.fullmatch(path)
    return "" if match is None else match[1] or match[2]


def authenticate(request_context: RequestContext, keys: ApiKeys, wanted: KeyScope) -> None:
    """Find the key of a request, if keys are required, and store it in the context.

    Raises:
        Unauthorized: the request has no valid key.
        Forbidden: the key lacks the scope.
    """
    if not keys.required:
        return
    secret = bearer_key(request_context.headers)
    key = None if secret is None else keys.find(secret)
    if key is None:
        raise unauthorized(secret)
    request_context.key = key
    key.expect_scope(wanted)


def expect_admin(scope: Scope, keys: ApiKeys, model: str | None = None) -> None:
    """Check the key of an admin call over HTTP, as `authenticate_admin` does."""
    authenticate_admin(request_context_of(scope), keys, model)


def authenticate_admin(request_context: RequestContext, keys: ApiKeys, model: str | None) -> None:
    """Check that a request may change what is served.

    Args:
        model: the name of the bundle that is to be changed; None is the service as a whole

    Raises:
        Unauthorized: the request has no key.
        Forbidden: there is no admin key, or the key lacks the scope `admin` or the model.
    """
    request_context.admin_model = model or ""
    if not keys.has_admin:
        raise Forbidden("key: this service has no admin key, so that nobody may do this")
    secret = bearer_key(request_context.headers)
    if secret is None:
        raise unauthorized(secret)
    key = keys.find(secret)
    if key is None:
        raise Forbidden("key: expected the admin key, got another one")
    request_context.key = key
    key.expect_scope("admin")
    if model is None:
        key.expect_all_models()
    else:
        key.expect_model(model)


def bearer_key(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the key after `Authorization: Bearer`, or None."""
    value = headers.get(b"authorization", b"")
    scheme, _, key = value.decode("utf-8", "surrogateescape").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def unauthorized(secret: str | None) -> Unauthorized:
    """Return the error for a request without a valid key."""
    got = "none" if secret is None else "one that is not known"
    return Unauthorized(f"key: expected `Authorization: Bearer <key>`, got {got}")
