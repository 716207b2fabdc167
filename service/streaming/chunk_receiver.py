"""Receives the chunks of a request body: one chunk ahead, decompressed, with a timeout."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from hsoftmax.service.errors import SlowBody
from hsoftmax.service.http.decompression import StreamDecompressor

from .activity import Activity

_DRAIN_TIMEOUT_S = 5.0


class ChunkReceiver:
    """Receiver of one body. `read` must run as a task of its own beside the consumer of `pieces`.

    It requests the next chunk only when the last one has been consumed, so a slow consumer slows
    the sender down.
    """

    def __init__(
        self, headers: Mapping[bytes, bytes], receive: Receive, activity: Activity, timeout: float
    ) -> None:
        encoding = headers.get(b"content-encoding", b"")
        name = encoding.decode("latin-1").strip().lower()
        self._decompressor = None if name in ("", "identity") else StreamDecompressor(name)
        self._receive = receive
        self._activity = activity
        self._timeout = timeout
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._ended = False

    async def read(self) -> None:
        """Receive the body, then wait until the client disconnects.

        Raises:
            ClientDisconnect: the client disconnected.
        """
        more = True
        while (message := await self._receive())["type"] != "http.disconnect":
            if not more:
                continue
            if body := message.get("body", b""):
                self._activity.touch()
                await self._chunks.put(body)
            if not (more := message.get("more_body", False)):
                await self._chunks.put(None)
        raise ClientDisconnect

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the decompressed body.

        Raises:
            SlowBody: nothing arrived for the timeout, although every row before was answered.
            Unreadable, TooLarge: the compression is broken, cut short, or expands beyond its bound.
        """
        while (chunk := await self._next()) is not None:
            if self._decompressor is None:
                yield chunk
                continue
            expanded = self._decompressor.feed(chunk)
            while (piece := await asyncio.to_thread(next, expanded, None)) is not None:
                yield piece
        if self._decompressor is not None:
            self._decompressor.end()

    async def drain(self) -> None:
        """Discard the rest of the body, for a few seconds at most.

        A client whose connection is closed while it sends may not read the response.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                while not self._ended:
                    self._ended = await self._chunks.get() is None

    async def _next(self) -> bytes | None:
        while True:
            try:
                async with asyncio.timeout(self._timeout):
                    chunk = await self._chunks.get()
                    self._ended = chunk is None
                    return chunk
            except TimeoutError:
                if self._activity.idle_seconds() >= self._timeout:
                    raise SlowBody(
                        f"body: expected more of it, or its end, within {self._timeout:g} s"
                    ) from None
