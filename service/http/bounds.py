"""Checks the head of a request: its size, its number of headers, and unsupported features.

`protocol` calls it while uvicorn's parser reads, before the application gets the request.
"""

from collections.abc import Sequence

from hsoftmax.service.errors import HeadTooLarge, NotHttp, NotSupported, ServiceError, UrlTooLong

from .request_context import Header

MAX_HEAD_BYTES = 32 * 1024  # request line and headers together; trailers too
MAX_URL_BYTES = 8 * 1024
MAX_HEADERS = 100


def not_http() -> NotHttp:
    """Return the error for bytes that are not HTTP."""
    return NotHttp("request: expected HTTP/1.1, got something else")


def check_unfinished_head(url: bytes, headers: Sequence[Header], num_bytes: int) -> None:
    """Check a head, or trailers, of which only a part has arrived.

    Raises:
        UrlTooLong, HeadTooLarge: the part is too long already.
    """
    if num_bytes >= MAX_HEAD_BYTES:
        raise _too_long(url)
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"headers: expected at most {MAX_HEADERS}, got more")


def check_head(method: bytes, url: bytes, headers: Sequence[Header]) -> None:
    """Check a complete head.

    Raises:
        UrlTooLong, HeadTooLarge: the head is too long.
        NotSupported: the method is CONNECT, or the transfer coding is not chunked.
    """
    if len(url) > MAX_URL_BYTES:
        raise _too_long(url)
    check_unfinished_head(url, headers, 0)
    if method == b"CONNECT":
        raise NotSupported("method: expected a request to this server, got CONNECT to another")
    for name, value in headers:
        if name == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            raise NotSupported(f"transfer-encoding: expected chunked, got {value[:60]!r}")


def _too_long(url: bytes) -> ServiceError:
    if len(url) > MAX_URL_BYTES:
        return UrlTooLong(f"URL: expected at most {MAX_URL_BYTES} bytes, got more")
    return HeadTooLarge(f"headers: expected at most {MAX_HEAD_BYTES} bytes, got more")
