"""Measures the service at three times the load that it can sustain.

Requests for full distributions start at fixed intervals and do not wait for earlier responses. They
use open connections, as real clients do. The sustainable load, or peak, is the number of responses
a second that clients get if each waits for its response. Overload and peak are measured in turns,
as the speed of the machine changes by a tenth within a minute.
"""

import math
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from . import servers
from .bundles import query
from .clients import NO_CONNECTION, Clients, PeriodicTask, Traffic
from .servers import LOAD_CORE, Server
from .target_queries import PATH

_MAX_QUEUE_REQUESTS = 64  # a longer queue only makes admitted requests wait longer
_CLIENTS = 64
_CONNECTIONS = 256
_OVERLOAD_FACTOR = 3.0
_TURN_S = 5.0  # of overload between two measurements of the peak
_HEALTH = b"GET /healthz/live HTTP/1.1\r\nhost: a\r\n\r\n"
_WARM_UP_S = 1.0
_PEAK_S = 3.0
_HEALTH_INTERVAL_S = 0.05
_MEMORY_INTERVAL_S = 0.5


def measure(repository: Path, seconds: float, *, rows: int = 4) -> dict[str, Any]:
    """Return goodput and peak, the latencies of rejections and health checks, and the memory."""
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with servers.service(repository, max_queue_requests=_MAX_QUEUE_REQUESTS) as server:
            return _measure(server, seconds, rows)
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _measure(server: Server, seconds: float, rows: int) -> dict[str, Any]:
    resident = list[float]()
    with Traffic(server.port) as traffic:
        load, health = traffic.clients(_CONNECTIONS, _post(rows)), traffic.clients(1, _HEALTH)
        probes = [
            PeriodicTask(_HEALTH_INTERVAL_S, health.send_all),
            PeriodicTask(_MEMORY_INTERVAL_S, lambda: resident.append(server.resident_mib())),
        ]
        peaks = [_peak(traffic, rows)]
        offered, rates = PeriodicTask(math.inf, load.send), list[float]()
        answered, turns = 0, max(1, round(seconds / _TURN_S))
        for _ in range(turns):
            rates.append(_OVERLOAD_FACTOR * peaks[-1])
            offered.period = 1 / rates[-1]
            answered += _overload(traffic, load, offered, probes, seconds / turns)
            peaks.append(_peak(traffic, rows))
        for clients in (load, health):
            traffic.wait_for(clients)
            traffic.close(clients)
    goodput = answered / seconds
    return {
        "rows": rows,
        "goodput_to_peak": goodput / _between(peaks),
        "goodput_per_second": goodput,
        "peak_per_second": _between(peaks),
        "peak_least": min(peaks),
        "peak_most": max(peaks),
        "offered_per_second": fmean(rates),
        "client_late_p99_ms": offered.late.quantile_ms("clock", 0.99),
        **_latencies(load, health),
        **_memory(resident),
    }


def _overload(
    traffic: Traffic,
    load: Clients,
    offered: PeriodicTask,
    probes: list[PeriodicTask],
    seconds: float,
) -> int:
    """Run the overload; return the number of successful responses."""
    traffic.run(_WARM_UP_S, offered, *probes)
    before = load.latencies.count("200")
    traffic.run(seconds, offered, *probes)
    answered = load.latencies.count("200") - before
    traffic.wait_for(load)
    return answered


def _between(peaks: list[float]) -> float:
    """Return the mean of the peaks before and after each turn of overload."""
    return (sum(peaks) - (peaks[0] + peaks[-1]) / 2) / (len(peaks) - 1)


def _peak(traffic: Traffic, rows: int) -> float:
    """Return responses a second to clients that wait for each response, with health checks."""
    clients, health = traffic.clients(_CLIENTS, _post(rows)), traffic.clients(1, _HEALTH)
    probes = PeriodicTask(_HEALTH_INTERVAL_S, health.send_all)
    clients.eager = True
    clients.send_all()
    traffic.run(_WARM_UP_S, probes)  # loads pages, and the cost model learns
    clients.latencies.seconds.clear()
    traffic.run(_PEAK_S, probes)
    peak = clients.latencies.count("200") / _PEAK_S
    clients.eager = False
    for some in (clients, health):
        traffic.wait_for(some)
        traffic.close(some)
    return peak


def _memory(resident: list[float]) -> dict[str, float]:
    """Return the maximum memory of the first and the last third.

    Memory varies with the pending responses, so the maximum says more than the mean.
    """
    third = max(1, len(resident) // 3)
    return {
        "resident_mib_first_third": max(resident[:third]),
        "resident_mib_last_third": max(resident[-third:]),
    }


def _latencies(load: Clients, health: Clients) -> dict[str, Any]:
    latencies = load.latencies
    known = {"200", "429", NO_CONNECTION}
    return {
        "refused": latencies.count("429"),
        "left_out": latencies.count(NO_CONNECTION),
        "other": sum(latencies.count(kind) for kind in latencies.seconds if kind not in known),
        "answer_p50_ms": latencies.quantile_ms("200", 0.5),
        "answer_p99_ms": latencies.quantile_ms("200", 0.99),
        "refusal_p50_ms": latencies.quantile_ms("429", 0.5),
        "refusal_p99_ms": latencies.quantile_ms("429", 0.99),
        "health_p50_ms": health.latencies.quantile_ms("200", 0.5),
        "health_p99_ms": health.latencies.quantile_ms("200", 0.99),
        "health_max_ms": health.latencies.quantile_ms("200", 1.0),
    }


def _post(rows: int) -> bytes:
    body = query(rows).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
