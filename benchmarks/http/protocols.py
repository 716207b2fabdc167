"""Measures the processor time of uvicorn's protocol classes, in turns, with the `bare` app."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from . import servers
from .target_queries import json_queries, load

_PROTOCOLS = ("httptools", "bounded", "h11")
_CONNECTIONS, _TURNS = 8, 5


def measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    """Return the processor time for a 3 KB POST, and its ratio to uvicorn's httptools."""
    requests = json_queries(repository)
    taken: dict[str, list[float]] = {name: [] for name in _PROTOCOLS}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(servers.app("bare", repository, name)) for name in _PROTOCOLS
        }
        for _ in range(_TURNS):
            for name, server in running.items():
                taken[name].append(load(server, requests, _CONNECTIONS, seconds)["cpu_us"])
    base = median(taken["httptools"])
    return [
        {"protocol": name, "cpu_us": median(times), "to_httptools": median(times) / base}
        for name, times in taken.items()
    ]
