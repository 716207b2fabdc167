"""Compressed bytes that come in pieces, expanded in pieces: a little can say that it is a lot."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from service.errors import TooLarge, Unreadable, UnsupportedMediaType

_GZIP = 16 + zlib.MAX_WBITS
_LARGEST_WINDOW = 2**23  # what RFC 9659 lets senders count on
_PIECE = 2**18
_SLICE = 512  # bytes of zstd: at its best, 16 MiB
_RATIO = 256  # of what is expanded to what came; text that says anything has less
_FREE = 16 * 2**20  # bytes for which nobody counts


class Expander:
    """Expands one body; pieces are of some hundred kilobytes."""

    def __init__(self, encoding: str) -> None:
        if encoding not in _EXPANDERS:
            known = ", ".join(_EXPANDERS)
            raise UnsupportedMediaType(f"content-encoding: expected {known}, got {encoding[:60]!r}")
        self._encoding = encoding
        self._expand = _EXPANDERS[encoding]()
        self._came = 0
        self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes expand to. Raises Unreadable, and TooLarge if that is far too much."""
        self._came += len(data)
        try:
            for piece in self._expand.feed(data):
                self._given += len(piece)
                if self._given > _FREE + _RATIO * self._came:
                    raise TooLarge(f"body: expected at most {_RATIO} times its size when expanded")
                yield piece
        except (zlib.error, zstandard.ZstdError):
            raise Unreadable(f"body: expected {self._encoding}, which this is not") from None

    def end(self) -> None:
        """Raise Unreadable unless what came was whole."""
        if not self._expand.whole:
            raise Unreadable(f"body: expected {self._encoding}, got one that is cut short")


class _Gunzip:
    """Members one after another, as `cat` makes them."""

    def __init__(self) -> None:
        self._member: Any = None
        self.whole = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.whole:
                self._member, self.whole = zlib.decompressobj(_GZIP), False
            piece = self._member.decompress(data, _PIECE)
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
            parts.append(self._frame.decompress(data))
            data, self.whole = self._frame.unused_data, self._frame.eof
        return parts


_EXPANDERS: dict[str, Callable[[], "_Gunzip | _Unzstd"]] = {"gzip": _Gunzip, "zstd": _Unzstd}
