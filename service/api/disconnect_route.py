"""Route class for uploads: a client that disconnects in the middle is not an error."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from hsoftmax.service.http.request_context import CLIENT_LEFT, request_context_of


class DisconnectRoute(APIRoute):
    """Route whose handler may raise ClientDisconnect."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_disconnect(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientDisconnect:
                request_context_of(request.scope).code = "client_left"
                return Response(status_code=CLIENT_LEFT)

        return handle_disconnect
