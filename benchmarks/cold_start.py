"""Measures the time from the start of a service with a large bundle to its first response.

    python -m benchmarks.cold_start --json cold_start.json

The process is up when it logs its address, after Python's imports. Until it is ready it compares
its files with their SHA-256, and loads and runs every graph once. The bundle is in the page cache,
as after a copy or a rename; reading it from disk would take longer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .http.servers import ask, free_port
from .measure import report
from .workers import export

_NUM_TURNS = 5
_READY_TIMEOUT_S = 60.0


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        size = export(Path(folder), options.targets, options.hidden)
        rows = [
            {"weights, MiB": size / 2**20, **row}
            for flags in ([], ["--no-check-hashes"])
            for row in _measure(Path(folder), options.hidden, flags)
        ]
    report("From the start of a process to its first answer, ms", rows, options.json)


def _measure(repository: Path, hidden: int, flags: list[str]) -> Iterator[dict[str, Any]]:
    _measure_once(repository, hidden, flags)  # fills the page cache and Python's bytecode cache
    turns = [_measure_once(repository, hidden, flags) for _ in range(_NUM_TURNS)]
    for name, pick in (("best", np.min), ("median", np.median), ("worst", np.max)):
        times = {key: float(pick([turn[key] for turn in turns])) * 1e3 for key in turns[0]}
        yield {"hashes": "off" if flags else "compared", "of five": name, **times}


def _measure_once(repository: Path, hidden: int, flags: list[str]) -> dict[str, float]:
    """Return seconds from start to up, from up to ready, and from up to the first response."""
    port = free_port()
    command = [sys.executable, "-m", "hsoftmax", "serve", str(repository), f"--port={port}"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b'"serving"' in (line := process.stderr.readline()), line
        up = time.perf_counter()
        _wait_until_ready(port)
        ready = time.perf_counter()
        query = json.dumps({"inputs": np.ones((1, hidden)).tolist(), "targets": [123]})
        status, response = ask(port, "POST", "/v1/models/large/probabilities", query)
        assert status == 200, response
        answered = time.perf_counter()
    finally:
        process.terminate()
        process.communicate()
    return {"start to up": up - started, "up to ready": ready - up, "up to answer": answered - up}


def _wait_until_ready(port: int) -> None:
    end = time.perf_counter() + _READY_TIMEOUT_S
    while time.perf_counter() < end:
        try:
            if ask(port, "GET", "/healthz/ready")[0] == 200:
                return
        except OSError:  # it does not accept connections yet
            pass
        time.sleep(0.01)
    raise RuntimeError("the service did not become ready")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
