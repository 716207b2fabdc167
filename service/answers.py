"""Answers as ASGI messages: JSON bytes, and the one shape of every error."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Scope, Send

from .errors import Internal, MethodNotAllowed, NotFound, ServiceError
from .exchange import current
from .wire import encode

JSON = "application/json"
_JSON_HEADER = (b"content-type", JSON.encode())

UNFORESEEN = Internal("the service failed to answer; its log has the request's id")

# Errors of the framework that are no ServiceError yet, by status.
_BY_STATUS: dict[int, type[ServiceError]] = {404: NotFound, 405: MethodNotAllowed}


async def send_json(send: Send, body: bytes) -> None:
    """A 200 with this JSON."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [_JSON_HEADER, length]})
    await send({"type": "http.response.body", "body": body})


def error_response(
    error: ServiceError, scope: Scope, headers: Mapping[str, str] | None = None
) -> Response:
    """The error in the one shape; the exchange takes note of its code."""
    exchange = current(scope)
    exchange.code = error.code
    extra = dict(headers or {})
    if error.retry_after is not None:
        extra["retry-after"] = str(error.retry_after)
    body = {"error": str(error), "code": error.code, "request_id": exchange.request_id}
    return Response(encode(body), error.status, extra, JSON)


def of_status(status: int, allowed: str | None) -> ServiceError:
    """The ServiceError for an error that the framework raised by status alone."""
    kind = _BY_STATUS.get(status, Internal)
    if kind is MethodNotAllowed:
        return MethodNotAllowed(f"method: expected {allowed}, got another one")
    if kind is NotFound:
        return NotFound("there is no such route here: see /docs")
    return Internal(f"the request could not be served (status {status})")
