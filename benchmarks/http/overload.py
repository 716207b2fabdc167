"""Three times what the service can sustain, from clients that do not wait for one another.

Requests for full distributions start by the clock, whether those before have been answered or not,
over connections that are kept open, as real clients do. What can be sustained is measured before
and after, as the machine's pace changes within minutes: the answers a second that clients get who
each wait for theirs.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import uvloop

from . import servers
from .bundles import query
from .clients import LEFT_OUT, Clients
from .servers import LOAD_CORE, Server
from .target_queries import PATH

_QUEUE = 64  # requests; more only makes those that are admitted wait longer
_CLIENTS = 64
_CONNECTIONS = 256
_TIMES = 3.0
_HEALTH = b"GET /healthz/live HTTP/1.1\r\nhost: a\r\n\r\n"
_PAUSE = 0.05  # seconds between two looks at health
_LOOK = 0.5  # and at memory


def measure(repository: Path, seconds: float, *, rows: int = 4) -> dict[str, Any]:
    """Goodput against the peak, how fast refusals and health are, and what memory does."""
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with servers.service(repository, max_queue_requests=_QUEUE) as server:
            return {"rows": rows, **uvloop.run(_measure(server, seconds, rows))}
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


async def _measure(server: Server, seconds: float, rows: int) -> dict[str, Any]:
    peak = await _peak(server, rows, seconds)
    load, health = Clients(server.port, _post(rows)), Clients(server.port, _HEALTH)
    await load.open(_CONNECTIONS)
    await health.open(1)
    await load.open_loop(peak * _TIMES, 2.0)  # pages in
    load.seen.seconds.clear()
    spent, resident = server.cpu_seconds(), list[float]()
    watching = [
        asyncio.create_task(health.every(_PAUSE)),
        asyncio.create_task(_watch_memory(server, resident)),
    ]
    await load.open_loop(peak * _TIMES, seconds)
    for task in watching:
        task.cancel()
    busy = (server.cpu_seconds() - spent) / seconds
    load.close()
    health.close()
    peaks = peak, await _peak(server, rows, seconds)
    return {**_found(load, health, peaks, seconds), "server_busy": busy, **_memory(resident)}


async def _watch_memory(server: Server, resident: list[float]) -> None:
    while True:
        resident.append(server.resident_mib())
        await asyncio.sleep(_LOOK)


def _memory(resident: list[float]) -> dict[str, float]:
    """It goes up and down with the answers that are under way: the most there is tells more."""
    third = max(1, len(resident) // 3)
    return {
        "resident_mib_first_third": max(resident[:third]),
        "resident_mib_last_third": max(resident[-third:]),
    }


async def _peak(server: Server, rows: int, seconds: float) -> float:
    clients = Clients(server.port, _post(rows))
    await clients.open(_CLIENTS)
    await clients.closed_loop(max(2.0, seconds / 10))  # pages in, pace learnt
    peak = await clients.closed_loop(max(4.0, seconds / 4))
    clients.close()
    return peak


def _found(
    load: Clients, health: Clients, peaks: tuple[float, float], seconds: float
) -> dict[str, Any]:
    seen = load.seen
    before, after = peaks
    known = {"200", "429", LEFT_OUT}
    return {
        "peak_before_per_second": before,
        "peak_after_per_second": after,
        "offered_per_second": before * _TIMES,
        "goodput_per_second": seen.count("200") / seconds,
        "goodput_to_peak": seen.count("200") / seconds / (before + after) * 2,
        "refused": seen.count("429"),
        "left_out": seen.count(LEFT_OUT),
        "other": sum(seen.count(kind) for kind in seen.seconds if kind not in known),
        "answer_p50_ms": seen.quantile_ms("200", 0.5),
        "answer_p99_ms": seen.quantile_ms("200", 0.99),
        "refusal_p50_ms": seen.quantile_ms("429", 0.5),
        "refusal_p99_ms": seen.quantile_ms("429", 0.99),
        "health_p50_ms": health.seen.quantile_ms("200", 0.5),
        "health_p99_ms": health.seen.quantile_ms("200", 0.99),
        "health_max_ms": health.seen.quantile_ms("200", 1.0),
        "client_late_p99_ms": load.late.quantile_ms("clock", 0.99),
    }


def _post(rows: int) -> bytes:
    body = query(rows).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
