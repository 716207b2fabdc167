"""Interleaved timing, the machine's name, and a table with ratios."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Q = TypeVar("Q")


def medians(runs: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median microseconds of each, run in turns so that a noisy moment falls on all of them.

    Each turn has an order of its own: a run that always followed the same other would find the
    caches as that one leaves them.
    """
    alone = {name: lambda _, run=run: run() for name, run in runs.items()}
    return medians_of(alone, lambda: None, repeats=repeats)


def medians_of(
    runs: Mapping[str, Callable[[Q], object]], draw: Callable[[], Q], *, repeats: int
) -> dict[str, float]:
    """The same of runs that are asked something new each time; to draw it is not timed.

    So no run finds what it needs in cache by another's doing.
    """
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name in rng.permutation(list(runs)):
            asked = draw()
            start = time.perf_counter()
            runs[name](asked)
            if i:  # the first turn warms
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken) * 1e6) for name, taken in times.items()}


def machine() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def report(title: str, rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print rows as a table, and save them."""
    print(f"{title}\n{machine()}\n")
    names = list(rows[0])
    table = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(names))]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if json_file is not None:
        content = {"title": title, "machine": machine(), "rows": [dict(row) for row in rows]}
        json_file.write_text(json.dumps(content, indent=1) + "\n")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return str(value)
