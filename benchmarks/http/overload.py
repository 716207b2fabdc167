"""Three times what the service can sustain, from clients that do not wait for one another.

Requests for full distributions start by the clock, whether those before have been answered or not,
over connections that are kept open, as real clients do. What can be sustained is the answers a
second that clients get who each wait for theirs. Both take turns, as the machine's pace changes by
a tenth within a minute.
"""

import math
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from . import servers
from .bundles import query
from .clients import LEFT_OUT, Clients, Every, Traffic
from .servers import LOAD_CORE, Server
from .target_queries import PATH

_QUEUE = 64  # requests; more only makes those that are admitted wait longer
_CLIENTS = 64
_CONNECTIONS = 256
_TIMES = 3.0
_TURN = 5.0  # seconds of overload between two looks at the peak
_HEALTH = b"GET /healthz/live HTTP/1.1\r\nhost: a\r\n\r\n"
_WARM = 1.0  # seconds
_LASTS = 3.0  # seconds of the peak
_PAUSE = 0.05  # seconds between two looks at health
_LOOK = 0.5  # and at memory


def measure(repository: Path, seconds: float, *, rows: int = 4) -> dict[str, Any]:
    """Goodput against the peak, how fast refusals and health are, and what memory does."""
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with servers.service(repository, max_queue_requests=_QUEUE) as server:
            return _measure(server, seconds, rows)
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _measure(server: Server, seconds: float, rows: int) -> dict[str, Any]:
    resident = list[float]()
    with Traffic(server.port) as traffic:
        load, health = traffic.clients(_CONNECTIONS, _post(rows)), traffic.clients(1, _HEALTH)
        looks = [
            Every(_PAUSE, health.ask_all),
            Every(_LOOK, lambda: resident.append(server.resident_mib())),
        ]
        peaks = [_peak(traffic, rows)]
        offered, rates = Every(math.inf, load.ask), list[float]()
        answered, turns = 0, max(1, round(seconds / _TURN))
        for _ in range(turns):
            rates.append(_TIMES * peaks[-1])
            offered.period = 1 / rates[-1]
            answered += _overload(traffic, load, offered, looks, seconds / turns)
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
        **_found(load, health),
        **_memory(resident),
    }


def _overload(
    traffic: Traffic, load: Clients, offered: Every, looks: list[Every], seconds: float
) -> int:
    """How many requests were answered in so many seconds."""
    traffic.run(_WARM, offered, *looks)
    before = load.seen.count("200")
    traffic.run(seconds, offered, *looks)
    answered = load.seen.count("200") - before
    traffic.wait_for(load)
    return answered


def _between(peaks: list[float]) -> float:
    """The peak while there was overload: the mean of those before and after each turn of it."""
    return (sum(peaks) - (peaks[0] + peaks[-1]) / 2) / (len(peaks) - 1)


def _peak(traffic: Traffic, rows: int) -> float:
    """Answers a second that clients get who each wait for theirs, while health is looked at too."""
    clients, health = traffic.clients(_CLIENTS, _post(rows)), traffic.clients(1, _HEALTH)
    looks = Every(_PAUSE, health.ask_all)
    clients.eager = True
    clients.ask_all()
    traffic.run(_WARM, looks)  # pages in, pace learnt
    clients.seen.seconds.clear()
    traffic.run(_LASTS, looks)
    peak = clients.seen.count("200") / _LASTS
    clients.eager = False
    for some in (clients, health):
        traffic.wait_for(some)
        traffic.close(some)
    return peak


def _memory(resident: list[float]) -> dict[str, float]:
    """It goes up and down with the answers that are under way: the most there is tells more."""
    third = max(1, len(resident) // 3)
    return {
        "resident_mib_first_third": max(resident[:third]),
        "resident_mib_last_third": max(resident[-third:]),
    }


def _found(load: Clients, health: Clients) -> dict[str, Any]:
    seen = load.seen
    known = {"200", "429", LEFT_OUT}
    return {
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
    }


def _post(rows: int) -> bytes:
    body = query(rows).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
