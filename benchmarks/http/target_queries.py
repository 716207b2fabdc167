"""One row, one target: requests a second beside services that do less, or do it naively.

JSON, and of ours also npy in and out, which is compared with the same FastAPI that does nothing.

Servers take turns at each concurrency, so that a busy moment of the machine hits all of them.
`cpu_us` is the processor time that the server took for a request, which noise disturbs least.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import servers, wrk
from .bundles import npy_query, query, some_targets
from .servers import Server
from .wrk import Asked

CONCURRENCY = (1, 4, 16, 64, 256)
PATH = "/v1/models/random/probabilities"
NPY = "application/x-npy"

Rows = list[dict[str, Any]]


def measure(repository: Path, seconds: float) -> Rows:
    """A row for each server and concurrency, with its ratio to the FastAPI no-op."""
    rows: Rows = []
    as_json, as_npy = json_queries(repository), _npy_queries(repository)
    with _all(repository) as running:
        for connections in CONCURRENCY:
            at_once = [
                {"server": name, **load(server, as_json, connections, seconds)}
                for name, server in running.items()
            ]
            binary = load(
                running["hsoftmax"], as_npy, connections, seconds, accept=NPY, content_type=NPY
            )
            at_once.append({"server": "hsoftmax, npy", **binary})
            rows += [row | _ratios(row, at_once[0]) for row in at_once]
    return rows


def json_queries(repository: Path, path: str = PATH) -> list[Asked]:
    """One row and one target each."""
    return [
        (path, query(target=target, seed=i).encode())
        for i, target in enumerate(some_targets(repository))
    ]


def _npy_queries(repository: Path) -> list[Asked]:
    """The same, with the row as npy and the target in the URL."""
    return [
        (f"{PATH}?targets={target}", npy_query(seed=i))
        for i, target in enumerate(some_targets(repository))
    ]


def load(
    server: Server, asked: Sequence[Asked], connections: int, seconds: float, **told: str
) -> dict[str, float]:
    """What wrk saw, and what it cost the server."""
    before = server.cpu_seconds()
    seen = wrk.post(server.port, asked, connections=connections, seconds=seconds, **told)
    spent = server.cpu_seconds() - before
    return seen.as_json() | {"cpu_us": spent / max(1, seen.requests) * 1e6}


@contextmanager
def _all(repository: Path) -> Iterator[dict[str, Server]]:
    bundle = repository / "random" / "1"
    with ExitStack() as stack:
        apps = {
            "FastAPI no-op": "no_op",
            "bare ASGI": "bare",
            "lean ASGI": "lean",
            "naive FastAPI": "naive",
        }
        running = {
            shown: stack.enter_context(servers.app(name, bundle)) for shown, name in apps.items()
        }
        yield {**running, "hsoftmax": stack.enter_context(servers.service(repository))}


def _ratios(row: dict[str, Any], no_op: dict[str, Any]) -> dict[str, float]:
    return {
        "to_no_op": row["per_second"] / no_op["per_second"],
        "to_no_op_by_cpu": no_op["cpu_us"] / max(row["cpu_us"], 1e-9),
    }
