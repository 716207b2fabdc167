"""The two forms of a stream, and which of them a request has and wants."""

from enum import StrEnum

from hsoftmax.service.errors import UnsupportedMediaType
from hsoftmax.service.http.content_types import UNSAID, kind_of, liked_best


class StreamForm(StrEnum):
    """What rows and records travel as."""

    LINES = "application/x-ndjson"
    ARROW = "application/vnd.apache.arrow.stream"


# JSON as well: one row is a line of it.
_LINES = (
    "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl",
    "application/jsonlines", "application/x-jsonlines", "application/json-lines",
    "application/json", "text/x-ndjson", "text/plain",
)  # fmt: skip
_KNOWN = {**dict.fromkeys(_LINES, StreamForm.LINES), StreamForm.ARROW.value: StreamForm.ARROW}
_ANY = ("*/*", "application/*")


def form_of_body(content_type: bytes) -> StreamForm:
    """By its content type, lines if that says nothing. Raises UnsupportedMediaType."""
    kind = kind_of(content_type)
    if kind in UNSAID:
        return StreamForm.LINES
    if kind not in _KNOWN:
        expected = ", ".join(StreamForm)
        raise UnsupportedMediaType(f"content-type: expected {expected}, got {kind[:60]!r}")
    return _KNOWN[kind]


def form_of_answer(accept: bytes, body: StreamForm) -> StreamForm:
    """The one that is liked best, the body's if none is. Raises NotAcceptable."""
    if not accept:
        return body
    return liked_best(accept, {**_KNOWN, **dict.fromkeys(_ANY, body)}, StreamForm)
