"""Answers as ASGI messages: JSON bytes, and the one shape of every error."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Scope, Send

from hsoftmax.service.codecs.json import encode
from hsoftmax.service.errors import Internal, MethodNotAllowed, NotFound, ServiceError, SlowBody

from .content_types import Format
from .request_context import REQUEST_ID, Headers, RequestContext, current, new_request_id

_TYPES = {form: (b"content-type", form.encode()) for form in Format}

UNEXPECTED = Internal("the service failed to answer; its log has the request's id")


async def send_answer(send: Send, form: Format, body: bytes) -> None:
    """A 200 with this body."""
    headers = answer_headers(form, len(body))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
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
    extra = {**(headers or {}), **_headers(error)}
    return Response(_body(error, current(scope)), error.status, extra, Format.JSON)


async def send_error(send: Send, error: ServiceError, scope: Scope) -> None:
    """The same where there is no framework, in a tenth of the time: refusals must be cheap."""
    headers, body = error_parts(error, current(scope))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_parts(error: ServiceError, request_context: RequestContext) -> tuple[Headers, bytes]:
    """The same as headers and body."""
    body = _body(error, request_context)
    headers = answer_headers(Format.JSON, len(body))
    headers += [(name.encode(), value.encode()) for name, value in _headers(error).items()]
    return headers, body


def connection_error(error: ServiceError) -> tuple[Headers, bytes]:
    """Headers and body of an error that belongs to no request, and ends its connection."""
    request_id = new_request_id()
    body = encode({"error": str(error), "code": error.code, "request_id": request_id})
    headers = answer_headers(Format.JSON, len(body))
    headers += [(REQUEST_ID, request_id.encode()), (b"connection", b"close")]
    return headers, body


def answer_headers(form: Format, length: int) -> Headers:
    """What says how to read a body that is there whole."""
    return [_TYPES[form], (b"content-length", b"%d" % length)]


def _body(error: ServiceError, request_context: RequestContext) -> bytes:
    request_context.code = error.code
    return encode(
        {"error": str(error), "code": error.code, "request_id": request_context.request_id}
    )


def _headers(error: ServiceError) -> Mapping[str, str]:
    if error.retry_after is not None:
        return {"retry-after": str(error.retry_after)}
    if isinstance(error, SlowBody):  # the rest of it would be read as the next request
        return {"connection": "close"}
    return {"www-authenticate": "Bearer"} if error.status == 401 else {}


def of_status(status: int, allowed: str | None, suggestion: str | None) -> ServiceError:
    """The ServiceError for an error that the framework raised by status alone."""
    match status:
        case MethodNotAllowed.status:
            return MethodNotAllowed(f"method: expected {allowed}, got another one")
        case NotFound.status:
            hint = "see" if suggestion is None else f"did you mean {suggestion}? See"
            return NotFound(f"there is no such route here: {hint} /docs")
        case _:
            return Internal(f"the request could not be served (status {status})")
