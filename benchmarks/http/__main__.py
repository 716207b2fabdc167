"""Measure the service over HTTP on this machine: server on core 0, load on core 1, loopback only.

    apt-get install wrk
    python -m benchmarks.http [--seconds 3] [--only target_queries,full_distributions,overload]
                              [--frameworks] [--json] [--page]

`--only protocols` and `--only hostile` are measured when they are named.
A minute or two with the default; `--seconds 60 --only overload` is the long run. `--frameworks`
also asks LitServe, BentoML and MLServer, each in its own virtual environment (see `frameworks`).
`--page` keeps the figures in docs/performance/http and draws docs/performance-http.md.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

from . import (
    frameworks,
    full_distributions,
    hostile,
    overload,
    page,
    protocols,
    target_queries,
    wrk,
)
from .bundles import export

_ALL = ("target_queries", "full_distributions", "overload")


def main() -> None:
    told = _told()
    if not wrk.available():
        sys.exit("wrk: not found, and nothing was measured; install it: apt-get install wrk")
    if len(os.sched_getaffinity(0)) < 2:
        print("one core only: server and load share it", file=sys.stderr)
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory)
        export(repository, told.targets)
        results = _measure(repository, told)
    if told.page:
        page.save(results)
    print(json.dumps(results, indent=1)) if told.json else _show(results)


def _told() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--targets", type=int, default=40_000)
    parser.add_argument("--only", type=lambda names: names.split(","), default=_ALL)
    parser.add_argument("--frameworks", action="store_true", help="install and measure others too")
    parser.add_argument("--json", action="store_true", help="figures as JSON on stdout")
    parser.add_argument("--page", action="store_true", help="figures into the documentation")
    return parser.parse_args()


def _measure(repository: Path, told: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": _machine(), "targets": told.targets}
    if "target_queries" in told.only:
        results["target_queries"] = target_queries.measure(repository, told.seconds)
    if "full_distributions" in told.only:
        results["full_distributions"] = full_distributions.measure(repository, told.seconds)
    if "overload" in told.only:
        seconds = max(told.seconds, 5.0)
        results["overload"] = [overload.measure(repository, seconds, rows=n) for n in (1, 4)]
    if "protocols" in told.only:
        results["protocols"] = protocols.measure(repository, told.seconds)
    if "hostile" in told.only:
        results["hostile"] = hostile.measure(repository, told.seconds)
    if told.frameworks:
        results["frameworks"] = frameworks.measure(repository, told.seconds)
    return results


def _machine() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _show(results: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    for name in [key for key, value in results.items() if isinstance(value, list)]:
        rows = results[name]
        print(f"\n{name}\n  " + "".join(f"{column:>20}" for column in rows[0]))
        for row in rows:
            print("  " + "".join(f"{_text(value):>20}" for value in row.values()))


def _text(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
