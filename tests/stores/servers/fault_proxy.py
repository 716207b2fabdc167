"""An HTTP proxy in front of a server, which spoils the answers about objects that a test names."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CONNECTION = re.compile(rb"(?i)\r\n(?:connection|keep-alive):[^\r]*")

# A fault gets the head and the body of the server's answer, and writes another one.
Fault = Callable[[asyncio.StreamWriter, bytes, bytes], Awaitable[None]]


class FaultProxy:
    """Forwards each request to a server; a fault spoils the answers whose target has a text.

    Attributes:
        hits: the answers that were spoiled
    """

    def __init__(self, server_port: int) -> None:
        self.hits = 0
        self._server_port = server_port
        self._about = b""
        self._fault: Fault | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        listening = asyncio.start_server(self._handle, "127.0.0.1", 0, limit=2**16)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])

    def spoil(self, about: str, fault: Fault) -> None:
        self.hits, self._about, self._fault = 0, about.encode(), fault

    def heal(self) -> None:
        self._fault = None

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client or the server is gone, or the test has ended
        finally:
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one request; its connection is closed after the answer."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(_length(head))
        fault = self._fault
        answer_head, answer_body = await self._ask(head, body)
        if fault is None or self._about not in head.split(b" ", 2)[1]:
            writer.write(answer_head + answer_body)
            await writer.drain()
            return
        self.hits += 1
        await fault(writer, answer_head, answer_body)

    async def _ask(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        writer.write(_closing(head) + body)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        answer_head, end, answer_body = answer.partition(b"\r\n\r\n")
        return _closing(answer_head + end), answer_body


async def slow(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    """Send the body in 30 parts, within 3 seconds."""
    writer.write(head)
    part = len(body) // 30 + 1
    for start in range(0, len(body), part):
        writer.write(body[start : start + part])
        await writer.drain()
        await asyncio.sleep(0.1)


async def hang(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    """Send half of the body and then nothing, over a connection that stays open."""
    writer.write(head + body[: len(body) // 2])
    await writer.drain()
    await asyncio.sleep(600)


async def cut(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    """Close the connection in the middle of the body."""
    writer.write(head + body[: len(body) // 2])
    await writer.drain()


async def flip(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    """Change one byte in the middle of the body."""
    middle = len(body) // 2
    writer.write(head + body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])
    await writer.drain()


async def shorten(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    """Answer with the first half of the body as if it were the whole."""
    await _answer(writer, b"200 OK", body[: len(body) // 2])


def refuse(status: bytes, code: bytes) -> Fault:
    """A fault that answers with an error of S3."""

    async def fault(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        text = b"<Error><Code>%s</Code><Message>SECRET</Message></Error>" % code
        await _answer(writer, status, b'<?xml version="1.0"?>' + text)

    return fault


async def _answer(writer: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
    fields = b"content-length: %d\r\ncontent-type: application/xml\r\n" % len(body)
    dates = b'last-modified: Sat, 28 Nov 2026 00:00:00 GMT\r\netag: "of-the-proxy"\r\n'
    writer.write(b"HTTP/1.1 %s\r\n%s%sconnection: close\r\n\r\n" % (status, fields, dates) + body)
    await writer.drain()


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _closing(head: bytes) -> bytes:
    """The head with the field that closes the connection after this message."""
    line, end, rest = _CONNECTION.sub(b"", head).partition(b"\r\n")
    return line + end + b"connection: close\r\n" + rest
