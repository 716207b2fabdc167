"""Whole distributions from many clients: the same service with batching on and off.

As JSON, and as npy, where writing the answer takes less than computing it.
"""

from pathlib import Path
from typing import Any

from . import servers
from .bundles import query
from .target_queries import load

CLIENTS = 64


def measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    """On and off in turns, twice; `to_off` compares the better of each."""
    with (
        servers.service(repository) as on,
        servers.service(repository, no_batching=None) as off,
    ):
        running = {"on": on, "off": off}
        rows = [
            {
                "accept": accept,
                "batching": name,
                **load(server, query(), CLIENTS, seconds, accept),
            }
            for accept in ("application/json", "application/x-npy")
            for _ in range(2)
            for name, server in running.items()
        ]
    return [row | {"to_off": _best(rows, row) / _best(rows, row, "off")} for row in rows]


def _best(rows: list[dict[str, Any]], like: dict[str, Any], batching: str | None = None) -> float:
    wanted = (like["accept"], batching or like["batching"])
    return max(row["per_second"] for row in rows if (row["accept"], row["batching"]) == wanted)
