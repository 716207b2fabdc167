"""Middleware that compresses large text answers for clients who accept that.

Arrays of floats hardly shrink, and go as they are. Compressing takes threads, not the event loop:
both libraries let go of the interpreter meanwhile.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

import zstandard
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsoftmax.service.http.decompression import GZIP
from hsoftmax.service.http.request_context import Headers, current

_FAST = 1  # a level; the higher ones cost several times as much, for some percent
_TEXT = (b"application/json", b"application/x-ndjson", b"text/", b"application/javascript")

VARY = (b"vary", b"accept-encoding")


class Compressor(Protocol):
    """Bytes in, some of the compressed ones out."""

    def compress(self, data: bytes) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


_COMPRESSORS: dict[bytes, Callable[[], Any]] = {
    b"zstd": lambda: zstandard.ZstdCompressor(level=_FAST).compressobj(),
    b"gzip": lambda: zlib.compressobj(_FAST, wbits=GZIP),
}
# What lets out all that was put in: who streams may be waiting for the other side to read it.
_FLUSH = {b"zstd": zstandard.COMPRESSOBJ_FLUSH_BLOCK, b"gzip": zlib.Z_SYNC_FLUSH}


class CompressionMiddleware:
    """In front of the app: picks the encoding, and leaves all others alone."""

    def __init__(self, app: ASGIApp, above: int) -> None:
        self._app = app
        self._above = above

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            encodings = current(scope).asked.get(b"accept-encoding", b"")
            if encodings and (ours := accepted(encodings)) is not None:
                send = _Compressing(send, ours, self._above)
        return self._app(scope, receive, send)


@lru_cache(maxsize=64)
def accepted(accept_encoding: bytes) -> bytes | None:
    """The first of ours that the client accepts, or None."""
    offers: dict[bytes, bytes] = {}
    for part in accept_encoding.lower().split(b","):
        name, _, quality = part.replace(b" ", b"").partition(b";q=")
        offers[name] = quality
    for ours in _COMPRESSORS:
        quality = offers.get(ours, b"0")
        if not quality or quality.strip(b"0."):
            return ours
    return None


class _Compressing:
    """One answer's `send`."""

    def __init__(self, send: Send, encoding: bytes, above: int) -> None:
        self._send = send
        self._encoding = encoding
        self._above = above
        self._start: Message | None = None
        self._compressor: Compressor | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_text(message["headers"]):
            self._start = message  # until the body shows whether it is worth while
            return
        if self._start is not None:
            start, self._start = self._start, None
            headers = [*start["headers"], VARY]
            if message.get("more_body") or len(message.get("body", b"")) >= self._above:
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


def compressible(headers: Headers, asked: Mapping[bytes, bytes]) -> bool:
    """Whether an answer may be compressed, so that whoever keeps it must know who it is for."""
    encodings = asked.get(b"accept-encoding", b"")
    return bool(encodings) and accepted(encodings) is not None and _is_text(headers)


def _is_text(headers: Headers) -> bool:
    kinds = [value for name, value in headers if name == b"content-type"]
    return bool(kinds) and kinds[0].startswith(_TEXT)


def _pack(compressor: Compressor, body: bytes, flush: int | None) -> bytes:
    """The piece, with all that was put in before it; None flushes to the end."""
    packed = compressor.compress(body)
    return packed + (compressor.flush() if flush is None else compressor.flush(flush))
