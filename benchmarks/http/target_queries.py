"""Measures queries of one row and one target, beside the other `apps`.

Bodies are JSON; for the service and lean ASGI also npy. All apps run with the service's protocol
class. Servers take turns at each concurrency, so that a busy moment of the machine affects all of
them. `cpu_us` is the server's processor time for a request, which noise affects least.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import servers, wrk
from .bundles import npy_query, query, some_targets
from .servers import Server
from .wrk import Post

CONCURRENCY = (1, 4, 16, 64, 256)
PATH = "/v1/models/random/probabilities"
NPY = "application/x-npy"
OURS, NO_OP, LEAN, LEAN_NPY = "hsoftmax", "FastAPI no-op", "lean ASGI", "lean ASGI, npy"

Rows = list[dict[str, Any]]


def measure(repository: Path, seconds: float) -> Rows:
    """Return a row for each server and concurrency, with its ratios to no-op and lean app."""
    rows: Rows = []
    as_json, as_npy = json_queries(repository), _npy_queries(repository)
    with _all(repository) as running:
        for connections in CONCURRENCY:
            at_once = [
                {"server": name, **load(server, as_json, connections, seconds)}
                for name, server in running.items()
                if name != LEAN_NPY
            ]
            for name, server in (("hsoftmax, npy", running[OURS]), (LEAN_NPY, running[LEAN_NPY])):
                binary = load(server, as_npy, connections, seconds, accept=NPY, content_type=NPY)
                at_once.append({"server": name, **binary})
            rows += [row | _ratios(row, at_once) for row in at_once]
    return rows


def json_queries(repository: Path, path: str = PATH) -> list[Post]:
    """Return JSON queries of one row and one target each."""
    return [
        (path, query(target=target, seed=i).encode())
        for i, target in enumerate(some_targets(repository))
    ]


def _npy_queries(repository: Path) -> list[Post]:
    """Return queries with the row as npy and the target in the URL."""
    return [
        (f"{PATH}?targets={target}", npy_query(seed=i))
        for i, target in enumerate(some_targets(repository))
    ]


def load(
    server: Server, requests: Sequence[Post], connections: int, seconds: float, **options: str
) -> dict[str, float]:
    """Return the figures of wrk and the server's processor time for a request."""
    before = server.cpu_seconds()
    result = wrk.post(server.port, requests, connections=connections, seconds=seconds, **options)
    spent = server.cpu_seconds() - before
    return result.as_json() | {"cpu_us": spent / max(1, result.requests) * 1e6}


@contextmanager
def _all(repository: Path) -> Iterator[dict[str, Server]]:
    bundle = repository / "random" / "1"
    with ExitStack() as stack:
        apps = {
            NO_OP: "no_op",
            "bare ASGI": "bare",
            LEAN: "lean",
            LEAN_NPY: "lean_npy",
            "naive FastAPI": "naive",
        }
        running = {
            shown: stack.enter_context(servers.app(name, bundle)) for shown, name in apps.items()
        }
        yield {**running, OURS: stack.enter_context(servers.service(repository))}


def _ratios(row: dict[str, Any], at_once: Rows) -> dict[str, float]:
    by_name = {one["server"]: one for one in at_once}
    no_op, lean = by_name[NO_OP], by_name[LEAN_NPY if "npy" in row["server"] else LEAN]
    return {
        "to_no_op": row["per_second"] / no_op["per_second"],
        "to_lean": row["per_second"] / lean["per_second"],
        "to_lean_by_cpu": lean["cpu_us"] / max(row["cpu_us"], 1e-9),
    }
