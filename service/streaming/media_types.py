"""Media types of streams, and their negotiation by content-type and accept headers."""

from enum import StrEnum

from hsoftmax.service.errors import UnsupportedMediaType
from hsoftmax.service.http.content_types import UNSPECIFIED_TYPES, media_type_of, preferred


class StreamMediaType(StrEnum):
    """Media type of a stream of rows or records."""

    LINES = "application/x-ndjson"
    ARROW = "application/vnd.apache.arrow.stream"


# application/json too: one row is one line of JSON.
_LINES = (
    "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl",
    "application/jsonlines", "application/x-jsonlines", "application/json-lines",
    "application/json", "text/x-ndjson", "text/plain",
)  # fmt: skip
_KNOWN = {
    **dict.fromkeys(_LINES, StreamMediaType.LINES),
    StreamMediaType.ARROW.value: StreamMediaType.ARROW,
}
_ANY = ("*/*", "application/*")


def request_type_of(content_type: bytes) -> StreamMediaType:
    """Return the media type of the body, lines by default. Raises UnsupportedMediaType."""
    media_type = media_type_of(content_type)
    if media_type in UNSPECIFIED_TYPES:
        return StreamMediaType.LINES
    if media_type not in _KNOWN:
        expected = ", ".join(StreamMediaType)
        raise UnsupportedMediaType(f"content-type: expected {expected}, got {media_type[:60]!r}")
    return _KNOWN[media_type]


def response_type_of(accept: bytes, request_type: StreamMediaType) -> StreamMediaType:
    """Return the type that the client prefers, by default the request's. Raises NotAcceptable."""
    if not accept:
        return request_type
    return preferred(accept, {**_KNOWN, **dict.fromkeys(_ANY, request_type)}, StreamMediaType)
