"""Runs the campaign for FUZZ_SECONDS and prints a table; exits with 1 if there was a failure.

Failing inputs are saved in build/fuzz. FUZZ_SEED chooses other mutations, FUZZ_PARSERS names some
of the parsers, FUZZ_PROCESSES is the number of children at the same time.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .campaign import Failure, Report, run
from .parsers import PARSERS

_SAVED = Path("build/fuzz")


def main() -> int:
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    seed = os.environ.get("FUZZ_SEED", "0")
    names = os.environ.get("FUZZ_PARSERS", ",".join(PARSERS)).split(",")
    processes = min(len(names), int(os.environ.get("FUZZ_PROCESSES", os.cpu_count() or 1)))
    with ThreadPoolExecutor(processes) as pool:
        lanes = [names[i::processes] for i in range(processes)]
        reports = list(pool.map(lambda lane: run(lane, seed, seconds, _SAVED), lanes))
    return _print(names, reports)


def _print(names: list[str], reports: list[Report]) -> int:
    failures = [failure for report in reports for failure in report.failures]
    print(f"{'parser':<14}{'inputs':>10}{'failures':>10}")
    for name in names:
        tried = sum(report.tried[name] for report in reports)
        failed = sum(failure.parser == name for failure in failures)
        print(f"{name:<14}{tried:>10}{failed:>10}")
    for failure in _distinct(failures):
        print(f"\n{failure.parser}: {failure.kind}, input saved as {failure.path}")
        print(failure.detail)
    return 1 if failures else 0


def _distinct(failures: list[Failure]) -> list[Failure]:
    """Return the first failure of each kind and place in the code."""
    first = {}
    for failure in failures:
        places = tuple(line for line in failure.detail.splitlines() if "  File " in line)
        first.setdefault((failure.parser, failure.kind, places or failure.detail[:60]), failure)
    return list(first.values())


if __name__ == "__main__":
    sys.exit(main())
