"""What stands before a request's body, and what is known of it from those that came before.

A client says the same before each body but for the body's length. To read that anew takes uvicorn
and its parser half of the time of a refusal; what they made of it once, they would make again.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from .exchange import REQUEST_ID, Header

_END = b"\r\n\r\n"
_LENGTH = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_DIGITS = 9
_LONGEST = 2**13  # bytes of a head
_MOST = 256  # heads
_MANY = 64  # headers: a head that is all names takes many times its bytes
# By the first a body has no length, or the connection is another one after it; of the others no two
# are the same.
_UNLIKE = frozenset(
    {
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        REQUEST_ID,
        b"date",
        b"traceparent",
        b"tracestate",
        b"b3",
        b"x-b3-spanid",
        b"x-amzn-trace-id",
        b"x-cloud-trace-context",
        b"x-correlation-id",
    }
)

T = TypeVar("T")

_Key = tuple[bytes, bytes]  # what comes before the length's line, and after it


class Head(msgspec.Struct, frozen=True):
    """A request but for its method, which is POST, and its body.

    Attributes:
        asked: the headers, by their names in lower case
    """

    path: str
    query_string: bytes
    headers: Sequence[Header]
    asked: Mapping[bytes, bytes]


class Heads(Generic[T]):
    """What is known of those that came last, by whomever; used in the event loop's thread alone."""

    def __init__(self) -> None:
        self._known: dict[_Key, T] = {}

    def find(self, data: bytes) -> tuple[T, bytes] | None:
        """What is known of the head, and the body, if the data is one whole request."""
        cut = _cut(data)
        if cut is None:
            return None
        key, length, start = cut
        if len(data) != start + length or (known := self._known.pop(key, None)) is None:
            return None
        self._known[key] = known  # who came last goes last
        return known, data[start:]

    def learn(self, data: bytes, head: Head, body: bytes, known: T) -> None:
        """Keep what is known of a head, if the data is just what was read as it and this body."""
        cut = _cut(data)
        if cut is None or len(head.headers) > _MANY or not _UNLIKE.isdisjoint(head.asked):
            return
        key, length, start = cut
        if length != len(body) or data[start:] != body:
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = known


def _cut(data: bytes) -> tuple[_Key, int, int] | None:
    """All but the length, the length, and where the body begins; None if it is not said so."""
    end = data.find(_END, 0, _LONGEST)
    for line in _LENGTH:
        at = data.find(line, 0, max(end, 0))
        if at >= 0:
            break
    else:
        return None
    stop = data.find(b"\r\n", at + len(line))
    digits = data[at + len(line) : stop]
    if not digits.isdigit() or len(digits) > _DIGITS:
        return None
    return (data[:at], data[stop:end]), int(digits), end + len(_END)
