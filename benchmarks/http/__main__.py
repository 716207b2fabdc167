"""Measure the service over HTTP on this machine: server on core 0, load on core 1, loopback only.

    apt-get install wrk
    python -m benchmarks.http [--seconds 3] [--only target_queries,full_distributions,overload]
                              [--frameworks] [--json] [--page]

`infer_queries`, `triton`, `protocols`, `hostile` and `text_queries` run only if `--only` names
them. The default takes a minute or two; `--seconds 60 --only overload` is the long run.
`--frameworks` also measures LitServe, BentoML and MLServer, each in its own virtual environment
(see `frameworks`). `--page` stores the figures in docs/performance/http and writes
docs/performance-http.md.
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
    infer_queries,
    overload,
    page,
    parts,
    protocols,
    target_queries,
    text_queries,
    triton,
    wrk,
)
from .bundles import export

_ALL = ("target_queries", "parts", "full_distributions", "overload")


def main() -> None:
    arguments = _parse_arguments()
    if not wrk.available():
        sys.exit("wrk: not found, and nothing was measured; install it: apt-get install wrk")
    if len(os.sched_getaffinity(0)) < 2:
        print("one core only: server and load share it", file=sys.stderr)
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory)
        export(repository, arguments.targets)
        results = _measure(repository, arguments)
    if arguments.page:
        page.save(results)
    print(json.dumps(results, indent=1)) if arguments.json else _show(results)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--targets", type=int, default=40_000)
    parser.add_argument("--only", type=lambda names: names.split(","), default=_ALL)
    parser.add_argument("--frameworks", action="store_true", help="install and measure others too")
    parser.add_argument("--json", action="store_true", help="figures as JSON on stdout")
    parser.add_argument("--page", action="store_true", help="figures into the documentation")
    return parser.parse_args()


def _measure(repository: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": _machine(), "targets": arguments.targets}
    if "target_queries" in arguments.only:
        results["target_queries"] = target_queries.measure(repository, arguments.seconds)
    if "infer_queries" in arguments.only:
        results["infer_queries"] = infer_queries.measure(repository, arguments.seconds)
    if "triton" in arguments.only:
        results["triton"] = triton.measure(repository, arguments.seconds)
    if "parts" in arguments.only:
        results["parts"] = parts.measure(repository, arguments.seconds)
    if "full_distributions" in arguments.only:
        results["full_distributions"] = full_distributions.measure(repository, arguments.seconds)
    if "overload" in arguments.only:
        seconds = max(arguments.seconds, 5.0)
        results["overload"] = [overload.measure(repository, seconds, rows=n) for n in (1, 4)]
    if "protocols" in arguments.only:
        results["protocols"] = protocols.measure(repository, arguments.seconds)
    if "hostile" in arguments.only:
        results["hostile"] = hostile.measure(repository, arguments.seconds)
    if "text_queries" in arguments.only:
        results["text_queries"] = text_queries.measure(repository, arguments.seconds)
    if arguments.frameworks:
        results["frameworks"] = frameworks.measure(repository, arguments.seconds)
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
