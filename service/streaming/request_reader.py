"""A request's body as it comes: one piece ahead, expanded, and never waited for without end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from hsoftmax.service.errors import SlowBody
from hsoftmax.service.http.decompression import Expander

from .activity import Activity

_DRAIN_TIMEOUT_S = 5.0  # seconds


class RequestReader:
    """The body's pieces; `read` must run beside whoever takes them.

    The next piece is asked for when this one has been taken, so that a slow taker slows the sender.
    """

    def __init__(
        self, headers: Mapping[bytes, bytes], receive: Receive, activity: Activity, timeout: float
    ) -> None:
        encoding = headers.get(b"content-encoding", b"")
        name = encoding.decode("latin-1").strip().lower()
        self._expander = None if name in ("", "identity") else Expander(name)
        self._receive = receive
        self._activity = activity
        self._timeout = timeout
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._ended = False

    async def read(self) -> None:
        """Ask for pieces, and then wait for the client to leave.

        Raises:
            ClientDisconnect: it left.
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
        """The body, expanded.

        Raises:
            SlowBody: for too long nothing came, although all that had come was answered.
            Unreadable, TooLarge: not compressed as it says, or not to its end, or far too well.
        """
        while (chunk := await self._next()) is not None:
            if self._expander is None:
                yield chunk
                continue
            expanded = self._expander.feed(chunk)
            while (piece := await asyncio.to_thread(next, expanded, None)) is not None:
                yield piece
        if self._expander is not None:
            self._expander.end()

    async def drain(self) -> None:
        """Take what still comes, for a while: who is cut off while it sends may read nothing."""
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
