"""Compressed bodies, expanded within a bound: a small body can say that it is a huge one."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from hsoftmax.service.errors import TooLarge, Unreadable, UnsupportedMediaType

GZIP = 16 + zlib.MAX_WBITS  # which tells zlib that it is one
_LARGEST_WINDOW = 2**23  # what RFC 9659 lets senders count on
_PIECE = 2**18
_SLICE = 512  # bytes: as much as 16 MiB of zstd, half a MiB of gzip
_SMALLEST = 1024  # bytes of a member, on the average, but for
_FREE_MEMBERS = 1000  # of them


class Decompressor(Protocol):
    """One body on its way.

    Attributes:
        whole: whether what came may be all of it
    """

    whole: bool

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes expand to, in pieces of some hundred kilobytes or what 512 bytes give.

        Raises:
            Unreadable: not compressed in that way, or in too many parts.
        """


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        UnsupportedMediaType: an encoding that is not known.
        Unreadable: not compressed in that way, or not to its end.
        TooLarge: more than `limit` bytes; no more are held than that and a piece.
    """
    expansion, parts, held = open_decompressor(encoding), [], 0
    for part in expansion.feed(body):
        parts.append(part)
        held += len(part)
        if held > limit:
            raise TooLarge(f"body: expected at most {limit} bytes when expanded, got more")
    if not (body and expansion.whole):
        raise Unreadable(f"body: expected {encoding}, got one that is cut short")
    return b"".join(parts)


def open_decompressor(encoding: str) -> Decompressor:
    """Raises UnsupportedMediaType for an encoding that is not known."""
    if encoding not in _EXPANSIONS:
        known = ", ".join(_EXPANSIONS)
        raise UnsupportedMediaType(f"content-encoding: expected {known}, got {encoding[:60]!r}")
    return _EXPANSIONS[encoding]()


class _Members:
    """Members, or frames, one after another, as `cat` makes them; an empty body has none."""

    def __init__(self, encoding: str, begin: Callable[[], Any], wrong: type[Exception]) -> None:
        self._encoding = encoding
        self._begin = begin
        self._wrong = wrong
        self._member: Any = None
        self._members = 0
        self._came = 0
        self.whole = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        parts, size = [], 0
        for start in range(0, len(data), _SLICE):
            for part in self._expanded(data[start : start + _SLICE]):
                parts.append(part)
                size += len(part)
            if size >= _PIECE:
                yield b"".join(parts)
                parts, size = [], 0
        if size:
            yield b"".join(parts)

    def _expanded(self, data: bytes) -> Iterator[bytes]:
        self._came += len(data)
        while data:
            if self.whole:
                self._next()
            try:
                part = self._member.decompress(data)
            except self._wrong:
                raise Unreadable(f"body: expected {self._encoding}, which this is not") from None
            data, self.whole = self._member.unused_data, self._member.eof
            if part:
                yield part

    def _next(self) -> None:
        """Begin with a member: to do so takes as long as to expand some kilobytes."""
        self._members += 1
        if self._members > _FREE_MEMBERS + self._came // _SMALLEST:
            raise Unreadable(
                f"body: expected {self._encoding} in parts of {_SMALLEST} bytes or more, got less"
            )
        self._member, self.whole = self._begin(), False


def _gunzip() -> Decompressor:
    return _Members("gzip", lambda: zlib.decompressobj(GZIP), zlib.error)


def _unzstd() -> Decompressor:
    made = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    return _Members("zstd", made.decompressobj, zstandard.ZstdError)


_EXPANSIONS: dict[str, Callable[[], Decompressor]] = {"gzip": _gunzip, "zstd": _unzstd}


_RATIO = 256  # of what is expanded to what came; text that says anything has less
_FREE_BYTES = 16 * 2**20  # bytes for which nobody counts


class Expander:
    """Expands one body."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._expansion = open_decompressor(encoding)
        self._came = 0
        self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes expand to. Raises Unreadable, and TooLarge if that is far too much."""
        self._came += len(data)
        for piece in self._expansion.feed(data):
            self._given += len(piece)
            if self._given > _FREE_BYTES + _RATIO * self._came:
                raise TooLarge(f"body: expected at most {_RATIO} times its size when expanded")
            yield piece

    def end(self) -> None:
        """Raise Unreadable unless what came was whole."""
        if not self._expansion.whole:
            raise Unreadable(f"body: expected {self._encoding}, got one that is cut short")
