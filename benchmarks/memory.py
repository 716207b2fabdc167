"""What a session costs in memory and time: loading, a query, many processes over one file.

    python -m benchmarks.memory --json memory.json

Every figure is read from the kernel in a process of its own: `RssAnon` is what that process alone
holds, Pss shares mapped pages out among those that map them.
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
from .synthetic import Written, two_level

_PROCESSES = (1, 4)
_QUERY_ROWS = 256


def main() -> None:
    options = _options()
    if options.inside is not None:
        _inside(options.inside, options.hidden, options.targets)
        return
    with two_level(options.clusters, options.block, options.hidden) as made:
        for task in ("target_log_prob", "log_probs", "top_k", "cluster_log_probs"):
            made.session(task)
        megabytes = (made.directory / bundle.WEIGHTS).stat().st_size / 1e6
        rows = [_measure(made, count, megabytes, options.hidden) for count in _PROCESSES]
    title = sizes(options)
    report(f"memory and loading, {title}", rows, options.json)


def _measure(made: Written, processes: int, megabytes: float, hidden: int) -> dict[str, object]:
    """Start the processes together, let each load and ask, then weigh them side by side."""
    command = [sys.executable, "-m", "benchmarks.memory", "--inside", str(made.directory)]
    started = [
        subprocess.Popen(
            [*command, "--hidden", str(hidden), "--targets", str(made.model.num_targets)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    found = [json.loads(p.stdout.readline()) for p in started if p.stdout is not None]
    pss = [_kilobytes(p.pid, "smaps_rollup", "Pss") / 1e3 for p in started]
    anonymous = [_kilobytes(p.pid, "status", "RssAnon") / 1e3 for p in started]
    for p in started:
        p.communicate("")
    return {
        "processes": processes,
        "bundle MB": megabytes,
        "all Pss MB": sum(pss),
        "anonymous MB each": float(np.mean(anonymous)),
        "load ms": float(np.median([f["load_ms"] for f in found])),
        "query peak MB": float(np.max([f["query_peak_mb"] for f in found])),
    }


def _inside(directory: Path, hidden: int, targets: int) -> None:
    """Load every graph, touch every weight, watch a large target query; then stay to be weighed."""
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

    def ask() -> None:
        target = np.random.default_rng().integers(0, targets, _QUERY_ROWS)
        session.run(None, {"hidden": hidden, "row": np.arange(_QUERY_ROWS), "target": target})

    ask()
    return peak_anonymous(lambda: [ask() for _ in range(50)])


def peak_anonymous(call: Callable[[], object]) -> float:
    """The most anonymous memory in MB that the process held during a call, above what it had."""
    before, most, done = _kilobytes("self", "status", "RssAnon"), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, _kilobytes("self", "status", "RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return max(0, most - before) / 1e3


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
