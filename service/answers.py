"""Answers as ASGI messages: JSON bytes, and the one shape of every error."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Scope, Send

from .errors import Internal, MethodNotAllowed, NotFound, ServiceError
from .exchange import current
from .formats import Format
from .wire import encode

_TYPES = {form: (b"content-type", form.encode()) for form in Format}

UNFORESEEN = Internal("the service failed to answer; its log has the request's id")

# Errors of the framework that are no ServiceError yet, by status.
_BY_STATUS: dict[int, type[ServiceError]] = {404: NotFound, 405: MethodNotAllowed}


async def send_answer(send: Send, form: Format, body: bytes) -> None:
    """A 200 with this body."""
    await begin_answer(send, form, len(body))
    await send({"type": "http.response.body", "body": body})


async def begin_answer(send: Send, form: Format, length: int | None) -> None:
    """A 200 whose body follows."""
    headers = [_TYPES[form]]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def error_response(
    error: ServiceError, scope: Scope, headers: Mapping[str, str] | None = None
) -> Response:
    """The error in the one shape; the exchange takes note of its code."""
    exchange = current(scope)
    exchange.code = error.code
    extra = dict(headers or {})
    if error.status == 401:
        extra["www-authenticate"] = "Bearer"
    if error.retry_after is not None:
        extra["retry-after"] = str(error.retry_after)
    body = {"error": str(error), "code": error.code, "request_id": exchange.request_id}
    return Response(encode(body), error.status, extra, Format.JSON)


def of_status(status: int, allowed: str | None) -> ServiceError:
    """The ServiceError for an error that the framework raised by status alone."""
    kind = _BY_STATUS.get(status, Internal)
    if kind is MethodNotAllowed:
        return MethodNotAllowed(f"method: expected {allowed}, got another one")
    if kind is NotFound:
        return NotFound("there is no such route here: see /docs")
    return Internal(f"the request could not be served (status {status})")
