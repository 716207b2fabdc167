"""Measures full distributions, beside the naive app, and with batching on and off.

Responses are JSON, and npy, whose encoding takes less time than the computation.
"""

from pathlib import Path
from typing import Any

from . import servers, wrk
from .bundles import query
from .target_queries import NPY, PATH, load

CLIENTS, FEW_CLIENTS = 64, 8
_REQUESTS = [(PATH, query(seed=i).encode()) for i in range(64)]


def measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure on and off in turns, twice; `to_other` is the ratio of their better results."""
    with (
        servers.service(repository) as on,
        servers.service(repository, no_batching=None) as off,
    ):
        running = {"hsoftmax": on, "no batching": off}
        rows = [
            {
                "accept": accept,
                "server": name,
                **load(server, _REQUESTS, CLIENTS, seconds, accept=accept),
            }
            for accept in (wrk.JSON, NPY)
            for _ in range(2)
            for name, server in running.items()
        ]
    naive = _beside_naive(repository, seconds)
    return [*_compared(naive, "naive FastAPI"), *_compared(rows, "no batching")]


def _beside_naive(repository: Path, seconds: float) -> list[dict[str, Any]]:
    bundle = repository / "random" / "1"
    with servers.service(repository) as ours, servers.app("naive", bundle) as naive:
        return [
            {"accept": wrk.JSON, "server": name, **load(server, _REQUESTS, FEW_CLIENTS, seconds)}
            for _ in range(2)
            for name, server in {"hsoftmax": ours, "naive FastAPI": naive}.items()
        ]


def _compared(rows: list[dict[str, Any]], other: str) -> list[dict[str, Any]]:
    return [row | {"to_other": _best(rows, row) / _best(rows, row, other)} for row in rows]


def _best(rows: list[dict[str, Any]], like: dict[str, Any], server: str | None = None) -> float:
    key = (like["accept"], server or like["server"])
    return max(row["per_second"] for row in rows if (row["accept"], row["server"]) == key)
