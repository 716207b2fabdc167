"""Negotiates the formats of request and response bodies by content-type and accept headers."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from hsoftmax.service.errors import NotAcceptable, UnsupportedMediaType

T = TypeVar("T")


class Format(StrEnum):
    """Media type of a request or response body. Only matrices can have other types than JSON."""

    JSON = "application/json"
    NPY = "application/x-npy"
    ARROW = "application/vnd.apache.arrow.stream"


# HTTP clients send one of these content types unless their caller sets one.
UNSPECIFIED_TYPES = frozenset(
    {"", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"}
)
_ANYTHING = {"*/*": Format.JSON, "application/*": Format.JSON}
_KNOWN = {**_ANYTHING, **{one.value: one for one in Format}}


def negotiate_types(headers: Mapping[bytes, bytes]) -> tuple[Format, Format]:
    """Return request type and response type, as `request_type_of` and `response_type_of` do."""
    return _negotiate_types(headers.get(b"content-type", b""), headers.get(b"accept", b""))


@lru_cache(maxsize=64)
def _negotiate_types(content_type: bytes, accept: bytes) -> tuple[Format, Format]:
    return request_type_of(content_type), response_type_of(accept)


def request_type_of(content_type: bytes) -> Format:
    """Return the type of the request body, JSON by default. Raises UnsupportedMediaType."""
    media_type = media_type_of(content_type)
    if media_type in UNSPECIFIED_TYPES or media_type.endswith("json"):
        return Format.JSON
    if media_type in (Format.NPY, Format.ARROW):
        return Format(media_type)
    expected = ", ".join(Format)
    raise UnsupportedMediaType(f"content-type: expected {expected}, got {media_type[:60]!r}")


def response_type_of(accept: bytes) -> Format:
    """Return the response type that the client prefers, JSON by default. Raises NotAcceptable."""
    if not accept:
        return Format.JSON
    return preferred(accept, _KNOWN, Format)


def media_type_of(content_type: bytes) -> str:
    """Return the media type without its parameters."""
    return content_type.decode("latin-1").partition(";")[0].strip().lower()


def preferred(accept: bytes, known: Mapping[str, T], expected: Iterable[str]) -> T:
    """Return the value of `known` whose media type the client prefers.

    Raises:
        NotAcceptable: the client accepts none of them; the message names the `expected` types.
    """
    offers = (_parse_offer(part) for part in accept.decode("latin-1").lower().split(","))
    accepted = [(quality, known[name]) for name, quality in offers if name in known and quality]
    if not accepted:
        raise NotAcceptable(f"accept: expected one of {', '.join(expected)}, got others")
    return max(accepted, key=lambda one: one[0])[1]


def _parse_offer(part: str) -> tuple[str, float]:
    media_type, *parameters = (word.strip() for word in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_type, float(parameter[2:])
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0
