"""Keep-alive connections that ask one question each at a time, and what was seen of the answers.

Cheap, so that what is measured is the server's time and not the client's, which may have the other
half of the same core: an answer is counted and not parsed, and no request has a task of its own.
`Clients.late` is the client's own part of it, by how much its clock was late.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LEFT_OUT = "no connection"  # what becomes of a request for which there is none

_LENGTH = b"content-length: "
_TICK = 0.001  # seconds; to sleep for less is not to sleep at all


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
        self._until = 0.0  # who is answered before then asks again

    async def open(self, connections: int) -> None:
        """Open so many more."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, one = await loop.create_connection(
                lambda: _Connection(self._answered), "127.0.0.1", self._port
            )
            self._idle.append(one)
            self._all.append(one)

    def close(self) -> None:
        for one in self._all:
            one.transport.close()

    async def closed_loop(self, seconds: float) -> float:
        """Every connection with its next request once it has its answer; answers a second."""
        before, self._until = self.seen.count("200"), time.perf_counter() + seconds
        for _ in range(len(self._idle)):
            self._ask()
        await self._all_idle()
        return (self.seen.count("200") - before) / seconds

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Requests by the clock, whether those before have been answered or not."""
        started, asked = time.perf_counter(), 0
        while (due := asked / rate) < seconds:
            passed = time.perf_counter() - started
            if passed < due:
                await asyncio.sleep(max(_TICK, due - passed))
                continue
            self.late.add("clock", passed - due)
            asked += 1
            self._ask()
        await self._all_idle()

    async def every(self, pause: float) -> None:
        """One request after the other, with a pause between them, until cancelled."""
        while True:
            self._ask()
            await self._all_idle()
            await asyncio.sleep(pause)

    def _ask(self) -> None:
        if self._idle:
            self._idle.pop().ask(self._request)
        else:
            self.seen.add(LEFT_OUT, 0.0)

    def _answered(self, one: "_Connection", kind: str, seconds: float) -> None:
        self.seen.add(kind, seconds)
        if one.transport.is_closing():
            self._all.remove(one)
        elif time.perf_counter() < self._until:
            one.ask(self._request)
        else:
            self._idle.append(one)

    async def _all_idle(self) -> None:
        while len(self._idle) < len(self._all):
            await asyncio.sleep(_TICK)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as it takes to see where an answer ends."""

    def __init__(self, answered: Callable[["_Connection", str, float], None]) -> None:
        self._answered = answered
        self._asked = 0.0  # when, while an answer is due

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  uvloop has its own
        self.transport = transport

    def ask(self, request: bytes) -> None:
        self._asked = time.perf_counter()
        self._head, self._tail = b"", b""
        self._missing: int | None = None
        if self.transport.is_closing():
            self._done("ConnectionResetError")
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing is not None:
            self._missing -= len(data)
        elif not self._body_began(data):
            return
        if self._missing == 0 or self._tail == b"0\r\n\r\n":
            self._done(self._head[9:12].decode())

    def connection_lost(self, error: Exception | None) -> None:
        if self._asked:
            self._done(type(error or ConnectionResetError()).__name__)

    def _body_began(self, data: bytes) -> bool:
        """Whether all headers are there; counts what came of the body."""
        if not self._head.endswith(b"\r\n\r\n"):
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = head + end
            if not end:
                return False
            _, found, after = self._head.lower().partition(_LENGTH)
            if found:
                self._missing = int(after.partition(b"\r\n")[0]) - len(data)
        self._tail = (self._tail + data)[-5:]  # of the last chunk, if there are any
        return True

    def _done(self, kind: str) -> None:
        seconds, self._asked = time.perf_counter() - self._asked, 0.0
        self._answered(self, kind, seconds)
