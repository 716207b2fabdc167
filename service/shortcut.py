"""Past FastAPI's middleware and router to the questions, which cost less than these do.

The same endpoints are routes of the app too, and in its OpenAPI document; whatever is not plainly
one of them goes the long way, and is answered or refused there.
"""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from .answers import error_response
from .errors import ServiceError

PREFIX = "/v1/models/"


class Shortcut:
    """Middleware that knows POST /v1/models/{name}/<question>, with errors in the one shape."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            name, _, question = path.removeprefix(PREFIX).partition("/")
            if path.startswith(PREFIX) and name and question in self._endpoints:
                scope["path_params"] = {"name": name}
                scope["endpoint"] = endpoint = self._endpoints[question]
                try:
                    return await endpoint(scope, receive, send)
                except ServiceError as error:
                    return await error_response(error, scope)(scope, receive, send)
        await self._app(scope, receive, send)
