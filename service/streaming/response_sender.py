"""An answer as it goes: what its client does not take yet waits, up to a bound."""

import asyncio

from starlette.types import Send

from .activity import Activity
from .spool import Spool

_MAX_SEND_BYTES = 2**18  # of what is sent in one go


class SlowReaderError(Exception):
    """A client that does not take its answer."""


class ResponseSender:
    """One answer; `send` must run beside whoever puts pieces into it."""

    def __init__(
        self, send: Send, spool: Spool, activity: Activity, timeout: float, content_type: bytes
    ) -> None:
        self._send = send
        self._spool = spool
        self._activity = activity
        self._timeout = timeout
        self._content_type = content_type
        self._data_added = asyncio.Event()
        self._data_sent = asyncio.Event()
        self._sending = False
        self.started = False

    async def put(self, piece: bytes) -> None:
        """Let a piece wait for its turn. Raises SlowReaderError if there is no room for it."""
        if not piece:
            return
        self.started = True
        while not await self._spool.put(piece):
            await self._wait_for_progress()
        self._data_added.set()

    async def flush(self) -> None:
        """Wait until all has been sent. Raises SlowReaderError."""
        while len(self._spool) or self._sending:
            await self._wait_for_progress()

    async def finish(self) -> None:
        """Wait until all has been sent, and say that nothing follows. Raises SlowReaderError."""
        await self.flush()
        await self._send({"type": "http.response.body", "body": b""})

    async def send(self) -> None:
        """Send what waits, for ever; the status goes with the first piece."""
        await self._data_added.wait()
        headers = [(b"content-type", self._content_type)]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            self._sending = True
            while data := await self._spool.take():
                await self._send_all(data)
            self._sending = False
            self._data_sent.set()
            self._data_added.clear()
            if not len(self._spool):
                await self._data_added.wait()

    async def _send_all(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX_SEND_BYTES):
            body = data[start : start + _MAX_SEND_BYTES]
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            self._activity.touch()
            self._data_sent.set()

    async def _wait_for_progress(self) -> None:
        """Wait until something was sent. Raises SlowReaderError if nothing is."""
        if not len(self._spool) and not self._sending:
            return
        self._data_sent.clear()
        try:
            async with asyncio.timeout(self._timeout):
                await self._data_sent.wait()
        except TimeoutError:
            raise SlowReaderError from None
