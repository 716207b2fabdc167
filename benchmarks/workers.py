"""Measures the memory of several worker processes on one bundle, and of very large responses.

    python -m benchmarks.workers --json workers.json

The kernel's Pss divides mapped pages among the processes that map them, so that it adds up. Every
worker reads the weights before it is measured. Nothing is timed.
"""

import argparse
import http.client
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax import bundle, exporter

from .http.bundles import random_model
from .http.servers import Server, service
from .measure import report

Row = dict[str, Any]


def main() -> None:
    options = _options()
    rows: list[Row] = []
    for targets, hidden, workers in (
        (options.targets, options.hidden, 1),
        (options.targets, options.hidden, 4),
        (options.many_targets, 8, 1),
    ):
        with tempfile.TemporaryDirectory() as folder:
            rows += _measure(Path(folder), targets, hidden, workers)
    report("Memory of workers, MiB", rows, options.json)


def _measure(repository: Path, targets: int, hidden: int, workers: int) -> Iterator[Row]:
    weights = export(repository, targets, hidden) / 2**20
    query = json.dumps({"inputs": np.ones((4, hidden)).tolist()})
    with service(repository, workers=workers) as server:
        common = {"targets": targets, "hidden": hidden, "workers": workers, "weights": weights}
        yield {**common, "when": "ready", **_memory(server)}
        for accept in ("application/x-npy", "application/json"):
            for pid in _process_tree(server.pid):  # resets the recorded peak
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            sent = sum(_request(server, query, accept) for _ in range(3 * workers)) / 2**20
            yield {**common, "when": f"after {sent:.0f} MiB {accept[12:]}", **_memory(server)}


def export(repository: Path, targets: int, hidden: int) -> int:
    """Write a bundle `large` of random weights in two equal levels; return its weights' bytes."""
    destination = exporter.parse_destination(repository / "large" / "1")
    exported = exporter.export_model(random_model(targets, hidden), destination)
    return (exported.path / bundle.WEIGHTS).stat().st_size


def _request(server: Server, query: str, accept: str) -> int:
    """Request a full distribution of four rows; return the number of bytes, which are discarded."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    connection.request("POST", "/v1/models/large/probabilities", query, {"accept": accept})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    size = 0
    while piece := response.read(2**20):
        size += len(piece)
    connection.close()
    return size


def _memory(server: Server) -> Row:
    """Return MiB of all processes: Pss, anonymous memory, and the highest peak of one process."""
    pids = _process_tree(server.pid)
    return {
        "processes": len(pids),
        "Pss": sum(_kib(pid, "smaps_rollup", "Pss") for pid in pids) / 1024,
        "anonymous": sum(_kib(pid, "status", "RssAnon") for pid in pids) / 1024,
        "peak": max(_kib(pid, "status", "VmHWM") for pid in pids) / 1024,
    }


def _kib(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _process_tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _process_tree(int(child)))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--many-targets", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
