"""What several processes over one bundle hold in memory, and what a huge answer takes.

    python -m benchmarks.workers --json workers.json

Pss, from the kernel, shares mapped pages out among those that map them, so that it adds up. The
weights are read by every worker before it is measured. Nothing here is timed.
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
            for pid in _family(server.pid):  # forget the most that it took until now
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            sent = sum(_ask(server, query, accept) for _ in range(3 * workers)) / 2**20
            yield {**common, "when": f"after {sent:.0f} MiB {accept[12:]}", **_memory(server)}


def export(repository: Path, targets: int, hidden: int) -> int:
    """A bundle "large" of random weights, in two levels of equal size; the bytes of its weights."""
    to = exporter.destination(repository / "large" / "1")
    made = exporter.export_model(random_model(targets, hidden), to)
    return (made.path / bundle.WEIGHTS).stat().st_size


def _ask(server: Server, query: str, accept: str) -> int:
    """Bytes of a full distribution of four rows, read and thrown away."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    connection.request("POST", "/v1/models/large/probabilities", query, {"accept": accept})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    size = 0
    while piece := answer.read(2**20):
        size += len(piece)
    connection.close()
    return size


def _memory(server: Server) -> Row:
    """MiB of all processes: in all, of their own, and the most that one has ever had of these."""
    pids = _family(server.pid)
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


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--many-targets", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
