"""Dispatches operations to their endpoints before FastAPI, whose router costs more than they do.

The endpoints are routes of FastAPI too, so they are in its OpenAPI document. Every other request
goes on to FastAPI.
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/v1/models/"


class Dispatcher:
    """ASGI layer that calls the endpoint of POST /v1/models/{name}/<operation>."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self.endpoints = endpoints

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "POST":
            name, operation = split_path(scope["path"])
            endpoint = self.endpoints.get(operation)
            if endpoint is not None:
                scope["path_params"] = {"name": name}
                scope["endpoint"] = endpoint
                return endpoint(scope, receive, send)
        return self._app(scope, receive, send)


@lru_cache(maxsize=256)
def split_path(path: str) -> tuple[str, str]:
    """Return name and operation of /v1/models/{name}/<operation>; empty strings for other paths."""
    name, _, operation = path.removeprefix(PREFIX).partition("/")
    return (name, operation) if path.startswith(PREFIX) and name else ("", "")
