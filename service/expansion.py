"""Compressed bodies, expanded within a bound: a small body can say that it is a huge one."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from .errors import TooLarge, Unreadable, UnsupportedMediaType

GZIP = 16 + zlib.MAX_WBITS  # which tells zlib that it is one
_LARGEST_WINDOW = 2**23  # what RFC 9659 lets senders count on
_PIECE = 2**18
_SLICE = 512  # bytes of zstd: at its best, 16 MiB


class Expansion(Protocol):
    """One body on its way.

    Attributes:
        whole: whether what came may be all of it
    """

    whole: bool

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes expand to, in pieces of some hundred kilobytes. Raises Unreadable."""


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        UnsupportedMediaType: an encoding that is not known.
        Unreadable: not compressed in that way, or not to its end.
        TooLarge: more than `limit` bytes; hardly more than that are ever held.
    """
    expansion, parts, held = open_expansion(encoding), [], 0
    for part in expansion.feed(body):
        parts.append(part)
        held += len(part)
        if held > limit:
            raise TooLarge(f"body: expected at most {limit} bytes when expanded, got more")
    if not (body and expansion.whole):
        raise Unreadable(f"body: expected {encoding}, got one that is cut short")
    return b"".join(parts)


def open_expansion(encoding: str) -> Expansion:
    """Raises UnsupportedMediaType for an encoding that is not known."""
    if encoding not in _EXPANSIONS:
        known = ", ".join(_EXPANSIONS)
        raise UnsupportedMediaType(f"content-encoding: expected {known}, got {encoding[:60]!r}")
    return _EXPANSIONS[encoding]()


class _Gunzip:
    """Members one after another, as `cat` makes them."""

    def __init__(self) -> None:
        self._member: Any = None
        self.whole = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.whole:
                self._member, self.whole = zlib.decompressobj(GZIP), False
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error:
                raise _unreadable("gzip") from None
            data = self._member.unused_data or self._member.unconsumed_tail
            self.whole = self._member.eof
            yield piece


class _Unzstd:
    """Frames one after another; little at a time, as there is no bound on what it gives."""

    def __init__(self) -> None:
        self._frame: Any = None
        self.whole = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        parts, size = [], 0
        for start in range(0, len(data), _SLICE):
            parts += self._expanded(data[start : start + _SLICE])
            size = sum(map(len, parts))
            if size >= _PIECE:
                yield b"".join(parts)
                parts, size = [], 0
        if size:
            yield b"".join(parts)

    def _expanded(self, data: bytes) -> list[bytes]:
        parts = []
        while data:
            if self.whole:
                made = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
                self._frame, self.whole = made.decompressobj(), False
            try:
                parts.append(self._frame.decompress(data))
            except zstandard.ZstdError:
                raise _unreadable("zstd") from None
            data, self.whole = self._frame.unused_data, self._frame.eof
        return parts


def _unreadable(encoding: str) -> Unreadable:
    return Unreadable(f"body: expected {encoding}, which this is not")


_EXPANSIONS: dict[str, Callable[[], Expansion]] = {"gzip": _Gunzip, "zstd": _Unzstd}
