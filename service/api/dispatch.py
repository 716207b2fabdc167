"""Past FastAPI's middleware and router to the questions, which cost less than these do.

The same endpoints are routes of the app too, and in its OpenAPI document; whatever is not plainly
one of them goes the long way, and is answered or refused there.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/v1/models/"

T = TypeVar("T")
Find = Callable[[str], tuple[str, T | None]]


class Shortcut:
    """Middleware that knows POST /v1/models/{name}/<question>."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._find = finder(endpoints)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "POST":
            name, endpoint = self._find(scope["path"])
            if endpoint is not None:
                scope["path_params"] = {"name": name}
                scope["endpoint"] = endpoint
                return endpoint(scope, receive, send)
        return self._app(scope, receive, send)


def finder(endpoints: Mapping[str, T]) -> Find[T]:
    """A function from a path to a bundle's name and the endpoint for it, if there is one."""

    @lru_cache(maxsize=256)
    def find(path: str) -> tuple[str, T | None]:
        name, _, question = path.removeprefix(PREFIX).partition("/")
        known = path.startswith(PREFIX) and name
        return name, endpoints.get(question) if known else None

    return find
