"""Which format a body is in, and which one its answer is wanted in."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from hsoftmax.service.errors import NotAcceptable, UnsupportedMediaType

T = TypeVar("T")


class Format(StrEnum):
    """A format of matrices; JSON is the one of everything."""

    JSON = "application/json"
    NPY = "application/x-npy"
    ARROW = "application/vnd.apache.arrow.stream"


# What clients say when nobody told them what they send.
UNSAID = frozenset(
    {"", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"}
)
_ANYTHING = {"*/*": Format.JSON, "application/*": Format.JSON}
_KNOWN = {**_ANYTHING, **{one.value: one for one in Format}}


def formats(headers: Mapping[bytes, bytes]) -> tuple[Format, Format]:
    """Of the body and of its answer, as `format_of_body` and `format_of_answer` say."""
    return _formats(headers.get(b"content-type", b""), headers.get(b"accept", b""))


@lru_cache(maxsize=64)
def _formats(content_type: bytes, accept: bytes) -> tuple[Format, Format]:
    return format_of_body(content_type), format_of_answer(accept)


def format_of_body(content_type: bytes) -> Format:
    """By its content type, JSON if that says nothing. Raises UnsupportedMediaType."""
    kind = kind_of(content_type)
    if kind in UNSAID or kind.endswith("json"):
        return Format.JSON
    if kind in (Format.NPY, Format.ARROW):
        return Format(kind)
    raise UnsupportedMediaType(f"content-type: expected {', '.join(Format)}, got {kind[:60]!r}")


def format_of_answer(accept: bytes) -> Format:
    """The one that is liked best, JSON if none is. Raises NotAcceptable if all are foreign."""
    if not accept:
        return Format.JSON
    return liked_best(accept, _KNOWN, Format)


def kind_of(content_type: bytes) -> str:
    """A media type without its parameters."""
    return content_type.decode("latin-1").partition(";")[0].strip().lower()


def liked_best(accept: bytes, known: Mapping[str, T], expected: Iterable[str]) -> T:
    """What is known by the media type that the client likes best.

    Raises:
        NotAcceptable: it accepts none of them; it is told what was `expected`.
    """
    likings = (_liking(part) for part in accept.decode("latin-1").lower().split(","))
    found = [(quality, known[kind]) for kind, quality in likings if kind in known and quality]
    if not found:
        raise NotAcceptable(f"accept: expected one of {', '.join(expected)}, got others")
    return max(found, key=lambda one: one[0])[1]


def _liking(part: str) -> tuple[str, float]:
    kind, *parameters = (word.strip() for word in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return kind, float(parameter[2:])
            except ValueError:
                return kind, 0.0
    return kind, 1.0
