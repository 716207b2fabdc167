"""Three times what the service can sustain, from clients that do not wait for one another.

Requests start by the clock, each on a connection of its own, whether the last was answered or not.
The rate that can be sustained is first measured by raising it until some are refused.
"""

import asyncio
import os
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from . import servers
from .bundles import query
from .servers import LOAD_CORE, Server
from .target_queries import PATH

_QUEUE = 64  # requests; more only makes those that are admitted wait longer
_CLIENTS = 64
_TIMES = 3.0
_ROWS = 4  # enough that computing takes more than connecting


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


def measure(repository: Path, seconds: float) -> dict[str, Any]:
    """Goodput against the peak, how fast refusals and health are, and what memory does."""
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with servers.service(repository, max_queue_requests=_QUEUE) as server:
            return uvloop.run(_measure(server, seconds))
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


async def _measure(server: Server, seconds: float) -> dict[str, Any]:
    await _closed_loop(server, max(2.0, seconds / 5))  # pages in, pace learnt
    peak = (await _closed_loop(server, max(3.0, seconds / 3))).count("200")
    peak_rate = peak / max(3.0, seconds / 3)
    before = server.resident_mib()
    seen, rate = await _open_loop(server, peak_rate * _TIMES, seconds)
    return {
        "peak_per_second": peak_rate,
        "offered_per_second": rate,
        "goodput_per_second": seen.count("200") / seconds,
        "goodput_to_peak": seen.count("200") / seconds / peak_rate,
        "refused": seen.count("429"),
        "other": sum(seen.count(k) for k in seen.seconds if k not in {"200", "429", "health"}),
        "refusal_p50_ms": seen.quantile_ms("429", 0.5),
        "refusal_p99_ms": seen.quantile_ms("429", 0.99),
        "health_p50_ms": seen.quantile_ms("health", 0.5),
        "health_p99_ms": seen.quantile_ms("health", 0.99),
        "resident_mib_before": before,
        "resident_mib_after": server.resident_mib(),
    }


async def _closed_loop(server: Server, seconds: float) -> Seen:
    """So many clients, each with its next request as soon as it has its answer."""
    seen, end = Seen(), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await _timed(seen, _post(server))

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return seen


async def _open_loop(server: Server, rate: float, seconds: float) -> tuple[Seen, float]:
    """Requests by the clock, and health beside them ten times a second."""
    seen, tasks = Seen(), set()
    started = time.monotonic()
    asked = 0
    health = asyncio.create_task(_watch_health(server, seen))
    while (passed := time.monotonic() - started) < seconds:
        while asked < passed * rate:
            task = asyncio.create_task(_timed(seen, _post(server)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            asked += 1
        await asyncio.sleep(0.005)
    health.cancel()
    counted = Seen({kind: list(values) for kind, values in seen.seconds.items()})
    await asyncio.gather(*tasks, return_exceptions=True)
    return counted, asked / seconds


async def _watch_health(server: Server, seen: Seen) -> None:
    while True:
        started = time.monotonic()
        await _request(server.port, b"GET /healthz/live HTTP/1.1\r\n\r\n")
        seen.add("health", time.monotonic() - started)
        await asyncio.sleep(0.1)


async def _timed(seen: Seen, asking: Awaitable[str]) -> None:
    started = time.monotonic()
    try:
        kind = await asking
    except OSError as error:
        kind = type(error).__name__
    seen.add(kind, time.monotonic() - started)


_BODY = query(_ROWS).encode()
_POST = (
    f"POST {PATH} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(_BODY)}\r\n"
    "connection: close\r\n\r\n"
).encode() + _BODY


def _post(server: Server) -> Awaitable[str]:
    return _request(server.port, _POST)


async def _request(port: int, request: bytes) -> str:
    """The status of an answer, once all of it has come."""
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_connection(lambda: _Asking(request), "127.0.0.1", port)
    try:
        return await asking.status
    finally:
        transport.close()


class _Asking(asyncio.Protocol):
    """One request; cheap, so that what is measured is the server's time and not the client's."""

    def __init__(self, request: bytes) -> None:
        self.status: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._request = request
        self._head = b""
        self._missing = -1

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  uvloop has its own
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = head
            self._missing = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            data = body
        self._missing -= len(data)
        if self._missing <= 0 and not self.status.done():
            self.status.set_result(self._head[9:12].decode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(error or ConnectionResetError())
