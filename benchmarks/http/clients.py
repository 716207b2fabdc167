"""Keep-alive connections that ask one question each at a time, and what was seen of the answers.

Cheap, so that what is measured is the server's time and not the client's: an answer is counted,
not parsed. `Clients.late` is the client's own part of it, by how much its clock was late.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

LEFT_OUT = "no connection"  # what becomes of a request for which there is none


@dataclass
class Seen:
    """Seconds that answers took, by what they were."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def count(self, kind: str) -> int:
        return len(self.seconds.get(kind, []))

    def quantile_ms(self, kind: str, at: float) -> float:
        values = sorted(self.seconds.get(kind, [0.0]))
        return values[min(len(values) - 1, int(at * len(values)))] * 1e3


class Clients:
    """A pool of open connections to one server."""

    def __init__(self, port: int, request: bytes) -> None:
        self.seen = Seen()
        self.late = Seen()
        self._port = port
        self._request = request
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def open(self, connections: int) -> None:
        """Open so many more."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, one = await loop.create_connection(_Connection, "127.0.0.1", self._port)
            self._idle.append(one)
            self._all.append(one)

    def close(self) -> None:
        for one in self._all:
            one.transport.close()

    async def closed_loop(self, seconds: float) -> float:
        """Every connection with its next request once it has its answer; answers a second."""
        end = time.perf_counter() + seconds
        before = self.seen.count("200")

        async def client(one: _Connection) -> None:
            while time.perf_counter() < end:
                await self._timed(one)

        await asyncio.gather(*(client(one) for one in self._idle))
        return (self.seen.count("200") - before) / seconds

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Requests by the clock, whether those before have been answered or not."""
        tasks: set[asyncio.Task[None]] = set()
        started, asked = time.perf_counter(), 0
        while (due := asked / rate) < seconds:
            passed = time.perf_counter() - started
            if passed < due:
                await asyncio.sleep(due - passed)
                continue
            self.late.add("clock", passed - due)
            asked += 1
            if not self._idle:
                self.seen.add(LEFT_OUT, 0.0)
                continue
            task = asyncio.create_task(self._borrowed())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def every(self, pause: float) -> None:
        """One request after the other, with a pause between them, until cancelled."""
        while True:
            await self._borrowed()
            await asyncio.sleep(pause)

    async def _borrowed(self) -> None:
        one = self._idle.pop()
        try:
            await self._timed(one)
        finally:
            self._idle.append(one)

    async def _timed(self, one: "_Connection") -> None:
        started = time.perf_counter()
        try:
            status = await one.ask(self._request)
        except OSError as error:
            status = type(error).__name__
        self.seen.add(status, time.perf_counter() - started)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as it takes to see where an answer ends."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  uvloop has its own
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[str]":
        """The status of the answer, once all of it has come."""
        self._status = asyncio.get_running_loop().create_future()
        self._head = b""
        self._missing: int | None = None
        self._tail = b""
        if self.transport.is_closing():
            self._status.set_exception(ConnectionResetError())
        else:
            self.transport.write(request)
        return self._status

    def data_received(self, data: bytes) -> None:
        if not self._body_began(data):
            return
        if (self._missing <= 0 if self._missing is not None else self._tail == b"0\r\n\r\n") and (
            not self._status.done()
        ):
            self._status.set_result(self._head[9:12].decode())

    def _body_began(self, data: bytes) -> bool:
        """Whether all headers are there; counts what came of the body."""
        if not self._head.endswith(b"\r\n\r\n"):
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = head + end
            if not end:
                return False
            _, found, after = self._head.lower().partition(b"content-length: ")
            self._missing = int(after.partition(b"\r\n")[0]) if found else None
        if self._missing is None:
            self._tail = (self._tail + data)[-5:]  # of the last chunk
        else:
            self._missing -= len(data)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "_status") and not self._status.done():
            self._status.set_exception(error or ConnectionResetError())
