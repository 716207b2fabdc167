"""Exception handlers of FastAPI: every error of a route gets the same JSON shape."""

from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from hsoftmax.service.errors import InvalidQuery, ServiceError
from hsoftmax.service.http.responses import UNEXPECTED, error_of_status, error_response
from hsoftmax.service.suggestions import closest_path

from .methods import allow_header


def add_error_handlers(api: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Add a handler for each type of error; the request log records unexpected ones.

    `routes` are all routes of the service, for `Allow` in a 405 and the suggestion in a 404.
    """
    templates = _route_templates(routes)

    @api.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        return error_response(error, request.scope)

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers = {"allow": allow_header(routes, request.scope)}
        missing = error.status_code == 404
        suggestion = closest_path(request.scope["path"], templates) if missing else None
        converted = error_of_status(
            error.status_code, request.method, headers.get("allow"), suggestion
        )
        return error_response(converted, request.scope, headers)

    @api.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return error_response(UNEXPECTED, request.scope)

    @api.exception_handler(RequestValidationError)
    async def parameter_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        expected = first["msg"].removeprefix("Input should be ").partition(",")[0]
        message = f"{first['loc'][-1]}: expected {expected}, got {str(first['input'])[:60]!r}"
        return error_response(InvalidQuery(message), request.scope)


def _route_templates(routes: Sequence[BaseRoute]) -> list[str]:
    """Return the sorted paths of the routes; an alias counts as the path of its endpoint."""
    templates = set()
    for route in routes:
        endpoint = getattr(route, "endpoint", None)
        templates.add(getattr(endpoint, "path", getattr(route, "path", "")))
    return sorted(templates)
