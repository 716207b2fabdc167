"""Measures the memory and loading time of sessions: one query, and several processes on one file.

    python -m benchmarks.memory --json memory.json

The kernel reports all figures for separate processes: `RssAnon` is the private memory of a process,
and Pss divides mapped pages among the processes that map them.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from hsoftmax import bundle
from hsoftmax.runtime.sessions import open_session

from .measure import report
from .options import sizes, two_level_options
from .synthetic import WrittenModel, two_level

_PROCESSES = (1, 4)
_QUERY_ROWS = 256


def main() -> None:
    options = _options()
    if options.inside is not None:
        _run_in_process(options.inside, options.hidden, options.targets)
        return
    with two_level(options.clusters, options.block, options.hidden) as written:
        for task in ("target_log_prob", "log_probs", "top_k", "cluster_log_probs"):
            written.session(task)
        megabytes = (written.directory / bundle.WEIGHTS).stat().st_size / 1e6
        rows = [_measure(written, count, megabytes, options.hidden) for count in _PROCESSES]
    title = sizes(options)
    report(f"memory and loading, {title}", rows, options.json)


def _measure(
    written: WrittenModel, processes: int, megabytes: float, hidden: int
) -> dict[str, object]:
    """Start the processes, let each load and run, then read the memory of all of them."""
    command = [sys.executable, "-m", "benchmarks.memory", "--inside", str(written.directory)]
    children = [
        subprocess.Popen(
            [*command, "--hidden", str(hidden), "--targets", str(written.model.num_targets)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    reports = [json.loads(p.stdout.readline()) for p in children if p.stdout is not None]
    pss = [_kilobytes(p.pid, "smaps_rollup", "Pss") / 1e3 for p in children]
    anonymous = [_kilobytes(p.pid, "status", "RssAnon") / 1e3 for p in children]
    for p in children:
        p.communicate("")
    return {
        "processes": processes,
        "bundle MB": megabytes,
        "all Pss MB": sum(pss),
        "anonymous MB each": float(np.mean(anonymous)),
        "load ms": float(np.median([f["load_ms"] for f in reports])),
        "query peak MB": float(np.max([f["query_peak_mb"] for f in reports])),
    }


def _run_in_process(directory: Path, hidden: int, targets: int) -> None:
    """Load and run every graph, measure a large query, and stay alive to be measured."""
    started = time.perf_counter()
    sessions = {graph.stem: open_session(graph) for graph in sorted(directory.glob("*.onnx"))}
    load = time.perf_counter() - started
    row = np.random.default_rng(0).standard_normal((1, hidden), dtype=np.float32)
    sessions["log_probs"].run(None, {"hidden": row})
    peak = _query_peak(sessions["target_log_prob"], row, targets)
    print(json.dumps({"load_ms": load * 1e3, "query_peak_mb": peak}), flush=True)
    sys.stdin.read()


def _query_peak(session: onnxruntime.InferenceSession, row: np.ndarray, targets: int) -> float:
    hidden = np.repeat(row, _QUERY_ROWS, axis=0)

    def run_query() -> None:
        target = np.random.default_rng().integers(0, targets, _QUERY_ROWS)
        session.run(None, {"hidden": hidden, "row": np.arange(_QUERY_ROWS), "target": target})

    run_query()
    return peak_anonymous(lambda: [run_query() for _ in range(50)])


def peak_anonymous(call: Callable[[], object]) -> float:
    """Return the growth of anonymous memory, in MB, at its peak during a call."""
    before, peak, done = _kilobytes("self", "status", "RssAnon"), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _kilobytes("self", "status", "RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return max(0, peak - before) / 1e3


def _kilobytes(pid: int | str, file: str, field: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--targets", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
