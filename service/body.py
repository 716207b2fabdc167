"""A request's body as bytes: of an acceptable type, and never more of it than the limit."""

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from .errors import InvalidQuery, TooLarge, UnsupportedMediaType

# What clients say when nobody told them what they send.
_UNSAID = frozenset(
    {"", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"}
)


async def read_json(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        UnsupportedMediaType: it says that it is not JSON, or compressed.
        TooLarge: more than `limit` bytes, said in advance or counted.
        ClientDisconnect: the client left.
    """
    headers = dict(scope["headers"])
    _expect_json(headers.get(b"content-type", b"").decode("latin-1"))
    _expect_identity(headers.get(b"content-encoding", b"identity").decode("latin-1"))
    _expect_length(headers.get(b"content-length"), limit)
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return _within(message.get("body", b""), limit)
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _too_large(limit, "more")
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit, str(len(body)))
    return body


def _expect_json(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _UNSAID and not kind.endswith("json"):
        raise UnsupportedMediaType(f"content-type: expected application/json, got {kind[:60]!r}")


def _expect_identity(encoding: str) -> None:
    if encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"content-encoding: expected none, got {encoding[:60]!r}")


def _expect_length(content_length: bytes | None, limit: int) -> None:
    if content_length is None:
        return
    if not content_length.isdigit():
        raise InvalidQuery("content-length: expected a number")
    if int(content_length) > limit:
        raise _too_large(limit, content_length.decode())


def _too_large(limit: int, got: str) -> TooLarge:
    return TooLarge(f"body: expected at most {limit} bytes, got {got}")
