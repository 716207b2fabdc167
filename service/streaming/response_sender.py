"""Sends a response body while it is produced. Bytes that the client does not read yet wait."""

import asyncio

from starlette.types import Send

from hsoftmax.service.errors import StorageFull

from .activity import Activity
from .spool import Spool

_MAX_SEND_BYTES = 2**18  # in one ASGI message


class SlowReaderError(Exception):
    """The client does not read its response."""


class ResponseSender:
    """Sender of one response. `send` must run as a task of its own beside the producer."""

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
        """Add a piece to the spool.

        Raises:
            SlowReaderError: it stays full for the timeout.
            StorageFull: the same, and it is only so small because the disk is full.
        """
        if not piece:
            return
        self.started = True
        while not await self._spool.put(piece):
            try:
                await self._wait_for_progress()
            except SlowReaderError:
                if not self._spool.disk_failed:
                    raise
                raise StorageFull(
                    "stream: expected a client that reads, or room on the disk for records "
                    "that wait for it, got neither"
                ) from None
        self._data_added.set()

    def put_last(self, piece: bytes) -> None:
        """Add the last piece, whether the spool has room or not."""
        self.started = True
        self._spool.put_last(piece)
        self._data_added.set()

    async def flush(self) -> None:
        """Wait until everything is sent. Raises SlowReaderError."""
        while len(self._spool) or self._sending:
            await self._wait_for_progress()

    async def finish(self) -> None:
        """Wait until everything is sent, then end the response. Raises SlowReaderError."""
        await self.flush()
        await self._send({"type": "http.response.body", "body": b""})

    async def send(self) -> None:
        """Send spooled bytes until cancelled. The first piece sends the status and headers."""
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
        """Wait until something is sent. Raises SlowReaderError if nothing is for the timeout."""
        if not len(self._spool) and not self._sending:
            return
        self._data_sent.clear()
        try:
            async with asyncio.timeout(self._timeout):
                await self._data_sent.wait()
        except TimeoutError:
            raise SlowReaderError from None
