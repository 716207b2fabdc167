"""Compressed bodies, expanded within a bound: a small body can say that it is a huge one."""

import zlib
from collections.abc import Callable
from io import BytesIO

import zstandard

from .errors import TooLarge, Unreadable, UnsupportedMediaType

_GZIP = 16 + zlib.MAX_WBITS
_LARGEST_WINDOW = 2**23  # what RFC 9659 lets senders count on


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        UnsupportedMediaType: an encoding that is not known.
        Unreadable: not compressed in that way, or not to its end.
        TooLarge: more than `limit` bytes; no more than that are ever held.
    """
    if encoding not in _EXPANDERS:
        known = ", ".join(_EXPANDERS)
        raise UnsupportedMediaType(f"content-encoding: expected {known}, got {encoding[:60]!r}")
    try:
        expanded = _EXPANDERS[encoding](body, limit + 1)
    except (zlib.error, zstandard.ZstdError):
        raise Unreadable(f"body: expected {encoding}, which this is not") from None
    if len(expanded) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes when expanded, got more")
    return expanded


def _gunzip(body: bytes, most: int) -> bytes:
    expander = zlib.decompressobj(_GZIP)
    expanded = expander.decompress(body, most)
    if len(expanded) < most and not expander.eof:
        raise zlib.error("it ends too early")
    return expanded


def _unzstd(body: bytes, most: int) -> bytes:
    expander = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    size = zstandard.frame_content_size(body)
    if size >= most:
        return bytes(most)
    with expander.stream_reader(BytesIO(body), read_across_frames=False) as reader:
        parts, held = [], 0
        while held < most and (part := reader.read(min(most - held, 2**20))):
            parts.append(part)
            held += len(part)
    if size >= 0 and held != size:
        raise zstandard.ZstdError("it ends too early")
    return b"".join(parts)


_EXPANDERS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gunzip, "zstd": _unzstd}
