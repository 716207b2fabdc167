"""Routes whose client may leave before all of its body is here: no fault of the service."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from hsoftmax.service.http.request_context import CLIENT_LEFT, current


class LeavingRoute(APIRoute):
    """A route that takes no client's leave for an error."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def cancel_on_disconnect(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientDisconnect:
                current(request.scope).code = "client_left"
                return Response(status_code=CLIENT_LEFT)

        return cancel_on_disconnect
