"""An answer as it goes: what its client does not take yet waits, up to a bound."""

import asyncio

from starlette.types import Send

from .activity import Activity
from .spool import Spool

_PIECE = 2**18  # of what is sent in one go


class SlowReaderError(Exception):
    """A client that does not take its answer."""


class ResponseSender:
    """One answer; `send` must run beside whoever puts pieces into it."""

    def __init__(
        self, send: Send, spool: Spool, pulse: Activity, patience: float, content_type: bytes
    ) -> None:
        self._send = send
        self._spool = spool
        self._pulse = pulse
        self._patience = patience
        self._content_type = content_type
        self._filled = asyncio.Event()
        self._moved = asyncio.Event()
        self._sending = False
        self.begun = False

    async def put(self, piece: bytes) -> None:
        """Let a piece wait for its turn. Raises SlowReaderError if there is no room for it."""
        if not piece:
            return
        self.begun = True
        while not await self._spool.put(piece):
            await self._progress()
        self._filled.set()

    async def empty(self) -> None:
        """Wait until all has been sent. Raises SlowReaderError."""
        while len(self._spool) or self._sending:
            await self._progress()

    async def end(self) -> None:
        """Wait until all has been sent, and say that nothing follows. Raises SlowReaderError."""
        await self.empty()
        await self._send({"type": "http.response.body", "body": b""})

    async def send(self) -> None:
        """Send what waits, for ever; the status goes with the first piece."""
        await self._filled.wait()
        headers = [(b"content-type", self._content_type)]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            self._sending = True
            while data := await self._spool.take():
                await self._send_all(data)
            self._sending = False
            self._moved.set()
            self._filled.clear()
            if not len(self._spool):
                await self._filled.wait()

    async def _send_all(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            body = data[start : start + _PIECE]
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            self._pulse.beat()
            self._moved.set()

    async def _progress(self) -> None:
        """Wait until something was sent. Raises SlowReaderError if nothing is."""
        if not len(self._spool) and not self._sending:
            return
        self._moved.clear()
        try:
            async with asyncio.timeout(self._patience):
                await self._moved.wait()
        except TimeoutError:
            raise SlowReaderError from None
