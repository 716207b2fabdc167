"""Compressed bytes that come in pieces, expanded in pieces: a little can say that it is a lot."""

from collections.abc import Iterator

from service.errors import TooLarge, Unreadable
from service.expansion import open_expansion

_RATIO = 256  # of what is expanded to what came; text that says anything has less
_FREE = 16 * 2**20  # bytes for which nobody counts


class Expander:
    """Expands one body."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._expansion = open_expansion(encoding)
        self._came = 0
        self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes expand to. Raises Unreadable, and TooLarge if that is far too much."""
        self._came += len(data)
        for piece in self._expansion.feed(data):
            self._given += len(piece)
            if self._given > _FREE + _RATIO * self._came:
                raise TooLarge(f"body: expected at most {_RATIO} times its size when expanded")
            yield piece

    def end(self) -> None:
        """Raise Unreadable unless what came was whole."""
        if not self._expansion.whole:
            raise Unreadable(f"body: expected {self._encoding}, got one that is cut short")
