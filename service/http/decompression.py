"""Decompresses request bodies within limits, as a small body can expand to a huge one."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from hsoftmax.service.errors import TooLarge, Unreadable, UnsupportedMediaType

GZIP_WBITS = 16 + zlib.MAX_WBITS  # selects the gzip format in zlib
_MAX_WINDOW_BYTES = 2**23  # RFC 9659 lets senders use windows up to this size
_PIECE_BYTES = 2**18
_SLICE_BYTES = 512  # expands to at most 16 MiB with zstd, half a MiB with gzip
_MIN_MEMBER_BYTES = 1024  # mean size of the members after the first ones
_UNCHECKED_MEMBERS = 1000


class Decompressor(Protocol):
    """Decompresses one body as it arrives.

    Attributes:
        is_complete: True if the body may end after the bytes so far
    """

    is_complete: bool

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes, in pieces of some hundred kilobytes.

        One slice of 512 compressed bytes may give a larger piece.

        Raises:
            Unreadable: the bytes do not have the encoding, or have too many members.
        """


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a whole body.

    Raises:
        UnsupportedMediaType: the encoding is unknown.
        Unreadable: the body does not have the encoding, or is cut short.
        TooLarge: the result exceeds `limit` bytes. Memory holds at most that and one piece.
    """
    decompressor, parts, size = open_decompressor(encoding), [], 0
    for part in decompressor.feed(body):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise TooLarge(f"body: expected at most {limit} bytes when expanded, got more")
    if not (body and decompressor.is_complete):
        raise Unreadable(f"body: expected {encoding}, got one that is cut short")
    return b"".join(parts)


def open_decompressor(encoding: str) -> Decompressor:
    """Return a decompressor for one body. Raises UnsupportedMediaType for an unknown encoding."""
    if encoding not in _DECOMPRESSORS:
        known = ", ".join(_DECOMPRESSORS)
        raise UnsupportedMediaType(f"content-encoding: expected {known}, got {encoding[:60]!r}")
    return _DECOMPRESSORS[encoding]()


class _MemberDecompressor:
    """Decompresses the members (gzip) or frames (zstd) of a body one after another.

    Concatenated files have several members; an empty body has none.
    """

    def __init__(self, encoding: str, new_member: Callable[[], Any]) -> None:
        self._encoding = encoding
        self._new_member = new_member
        self._member: Any = None
        self._members = 0
        self._received = 0
        self.is_complete = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        parts, size = [], 0
        for start in range(0, len(data), _SLICE_BYTES):
            for part in self._decompress(data[start : start + _SLICE_BYTES]):
                parts.append(part)
                size += len(part)
            if size >= _PIECE_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if size:
            yield b"".join(parts)

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        self._received += len(data)
        while data:
            if self.is_complete:
                self._start_member()
            try:
                part = self._member.decompress(data)
            except MemoryError:
                raise
            except Exception:  # the decoder's, of any type
                raise Unreadable(f"body: expected {self._encoding}, which this is not") from None
            data, self.is_complete = self._member.unused_data, self._member.eof
            if part:
                yield part

    def _start_member(self) -> None:
        """Start a member. Raises Unreadable for too many small ones.

        Starting a member takes as long as decompressing some kilobytes.
        """
        self._members += 1
        if self._members > _UNCHECKED_MEMBERS + self._received // _MIN_MEMBER_BYTES:
            least = f"{_MIN_MEMBER_BYTES} bytes or more"
            raise Unreadable(f"body: expected {self._encoding} in parts of {least}, got less")
        self._member, self.is_complete = self._new_member(), False


def _gunzip() -> Decompressor:
    return _MemberDecompressor("gzip", lambda: zlib.decompressobj(GZIP_WBITS))


def _unzstd() -> Decompressor:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    return _MemberDecompressor("zstd", decompressor.decompressobj)


def _inflate() -> Decompressor:
    return _MemberDecompressor("deflate", zlib.decompressobj)  # with zlib's header, as RFC 9110


_DECOMPRESSORS: dict[str, Callable[[], Decompressor]] = {
    "gzip": _gunzip,
    "zstd": _unzstd,
    "deflate": _inflate,
}


_MAX_RATIO = 256  # of decompressed to compressed bytes; real text has a lower ratio
_UNCHECKED_BYTES = 16 * 2**20  # the ratio is checked beyond these


class StreamDecompressor:
    """Decompresses one body of unlimited length, and limits its compression ratio."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._decompressor = open_decompressor(encoding)
        self._received = 0
        self._produced = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes. Raises Unreadable, or TooLarge for too high a ratio."""
        self._received += len(data)
        for piece in self._decompressor.feed(data):
            self._produced += len(piece)
            if self._produced > _UNCHECKED_BYTES + _MAX_RATIO * self._received:
                raise TooLarge(f"body: expected at most {_MAX_RATIO} times its size when expanded")
            yield piece

    def end(self) -> None:
        """Raise Unreadable if the body is cut short."""
        if not self._decompressor.is_complete:
            raise Unreadable(f"body: expected {self._encoding}, got one that is cut short")
