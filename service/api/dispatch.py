"""Dispatches operations to their endpoints before FastAPI, whose router costs more than they do.

The endpoints are routes of FastAPI too, so they are in its OpenAPI document. Every other request
goes on to FastAPI.
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/v1/models/"


class Dispatcher:
    """ASGI layer that calls the endpoint of POST /v1/models/{name}/<operation>, and of `infer`."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp], infer: ASGIApp) -> None:
        self._app = app
        self.endpoints = endpoints
        self.infer = infer

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "POST":
            name, operation = split_path(scope["path"])
            endpoint = self.endpoints.get(operation)
            if endpoint is not None:
                scope["path_params"] = {"name": name}
                scope["endpoint"] = endpoint
                return endpoint(scope, receive, send)
            if path_params := split_infer_path(scope["path"]):
                scope["path_params"] = dict(path_params)
                scope["endpoint"] = self.infer
                return self.infer(scope, receive, send)
        return self._app(scope, receive, send)


@lru_cache(maxsize=256)
def split_path(path: str) -> tuple[str, str]:
    """Return name and operation of /v1/models/{name}/<operation>; empty strings for other paths."""
    name, _, operation = path.removeprefix(PREFIX).partition("/")
    return (name, operation) if path.startswith(PREFIX) and name else ("", "")


@lru_cache(maxsize=256)
def split_infer_path(path: str) -> tuple[tuple[str, str], ...]:
    """Return name and version of /v2/models/{name}[/versions/{version}]/infer; () for others."""
    match path.split("/")[1:]:
        case ["v2", "models", name, "infer"] if name:
            return (("name", name),)
        case ["v2", "models", name, "versions", version, "infer"] if name and version:
            return (("name", name), ("version", version))
        case _:
            return ()
