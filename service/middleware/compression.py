"""Compresses large text responses for clients that accept it.

Arrays of floats hardly shrink, so they are sent uncompressed. Compression runs on threads and does
not block the event loop, as both libraries release the GIL.

Triton's clients decompress the answers of `infer` alone, and know gzip and deflate. Where their
caller asks for one of them, they name it alone; then raw tensors are compressed too.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Protocol

import zstandard
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsoftmax.service.http.decompression import GZIP_WBITS
from hsoftmax.service.http.request_context import Headers, request_context_of

_LEVEL = 1  # higher levels take several times as long, and save some percent
_TEXT_TYPES = (b"application/json", b"application/x-ndjson", b"text/", b"application/javascript")
_RAW_TENSORS = b"application/octet-stream"
_OPEN_INFERENCE, _INFER = "/v2/", "/infer"

VARY = (b"vary", b"accept-encoding")


class Compressor(Protocol):
    """Compresses one body as it is produced."""

    def compress(self, data: bytes) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


_COMPRESSORS: dict[bytes, Callable[[], Any]] = {
    b"zstd": lambda: zstandard.ZstdCompressor(level=_LEVEL).compressobj(),
    b"gzip": lambda: zlib.compressobj(_LEVEL, wbits=GZIP_WBITS),
    b"deflate": lambda: zlib.compressobj(_LEVEL),
}
_KNOWN = tuple(_COMPRESSORS)
_KNOWN_TO_TRITON = (b"gzip", b"deflate")
# Each piece of a stream is flushed, as the client may need it before it sends more.
_FLUSH = {
    b"zstd": zstandard.COMPRESSOBJ_FLUSH_BLOCK,
    b"gzip": zlib.Z_SYNC_FLUSH,
    b"deflate": zlib.Z_SYNC_FLUSH,
}


class CompressionMiddleware:
    """ASGI middleware that wraps `send` if the client accepts zstd, gzip or deflate."""

    def __init__(self, app: ASGIApp, min_bytes: int) -> None:
        self._app = app
        self._min_bytes = min_bytes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            encodings = request_context_of(scope).headers.get(b"accept-encoding", b"")
            if encodings:
                send = self._wrap(send, scope["path"], encodings)
        return self._app(scope, receive, send)

    def _wrap(self, send: Send, path: str, encodings: bytes) -> Send:
        """Return the `send` of a response, which compresses it if the client accepts that."""
        known = _KNOWN
        types: tuple[bytes, ...] = _TEXT_TYPES
        if path.startswith(_OPEN_INFERENCE):
            known = _KNOWN_TO_TRITON if path.endswith(_INFER) else ()
            types = _TEXT_TYPES if b"," in encodings else (*_TEXT_TYPES, _RAW_TENSORS)
        encoding = accepted_encoding(encodings, known)
        if encoding is None:
            return send
        return _CompressingSend(send, encoding, self._min_bytes, types)


@lru_cache(maxsize=64)
def accepted_encoding(accept_encoding: bytes, known: tuple[bytes, ...] = _KNOWN) -> bytes | None:
    """Return the first of the known encodings that the client accepts, or None."""
    offers: dict[bytes, bytes] = {}
    for part in accept_encoding.lower().split(b","):
        name, _, quality = part.replace(b" ", b"").partition(b";q=")
        offers[name] = quality
    for encoding in known:
        quality = offers.get(encoding, b"0")
        if not quality or quality.strip(b"0."):
            return encoding
    return None


class _CompressingSend:
    """ASGI `send` of one response, which compresses the body."""

    def __init__(
        self, send: Send, encoding: bytes, min_bytes: int, types: tuple[bytes, ...]
    ) -> None:
        self._send = send
        self._encoding = encoding
        self._types = types
        self._min_bytes = min_bytes
        self._start: Message | None = None
        self._compressor: Compressor | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._is_compressed(message):
            self._start = message  # sent once the size of the body is known
            return
        if self._start is not None:
            start, self._start = self._start, None
            headers = [*start["headers"], VARY]
            if message.get("more_body") or len(message.get("body", b"")) >= self._min_bytes:
                self._compressor = _COMPRESSORS[self._encoding]()
                headers = [(name, value) for name, value in headers if name != b"content-length"]
                headers.append((b"content-encoding", self._encoding))
            await self._send({**start, "headers": headers})
        if self._compressor is not None and message["type"] == "http.response.body":
            body, more = message.get("body", b""), message.get("more_body", False)
            flush = _FLUSH[self._encoding] if more else None
            packed = await asyncio.to_thread(_pack, self._compressor, body, flush)
            message = {**message, "body": packed}
        await self._send(message)

    def _is_compressed(self, start: Message) -> bool:
        headers: Headers = start["headers"]
        types = [value for name, value in headers if name == b"content-type"]
        return bool(types) and types[0].startswith(self._types)


def _pack(compressor: Compressor, body: bytes, flush: int | None) -> bytes:
    """Compress a piece and flush with this mode; None ends the body."""
    packed = compressor.compress(body)
    return packed + (compressor.flush() if flush is None else compressor.flush(flush))
