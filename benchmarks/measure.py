"""Interleaved timing, the machine's name, and tables of results."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Input = TypeVar("Input")


def medians(runs: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Return the median microseconds of each run; runs take turns, so that disturbances hit all.

    The order of each turn is random: a run that always followed the same other run would always
    find the caches in the state which that run leaves.
    """
    without_input = {name: lambda _, run=run: run() for name, run in runs.items()}
    return medians_with_inputs(without_input, lambda: None, repeats=repeats)


def medians_with_inputs(
    runs: Mapping[str, Callable[[Input], object]], draw_input: Callable[[], Input], *, repeats: int
) -> dict[str, float]:
    """Return the median microseconds of each run on a new input each time.

    Drawing the input is not timed. With new inputs, no run finds its data in cache because of
    another.
    """
    timed_runs = {name: timed(run) for name, run in runs.items()}
    return medians_of_turns(timed_runs, draw_input, repeats=repeats)


def medians_of_turns(
    runs: Mapping[str, Callable[[Input], float]], draw_input: Callable[[], Input], *, repeats: int
) -> dict[str, float]:
    """Return the median microseconds of each run, which a run itself measures and returns."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name in rng.permutation(list(runs)):
            microseconds = runs[name](draw_input())
            if i:  # the first turn is a warm-up
                times[name].append(microseconds)
    return {name: float(np.median(of_run)) for name, of_run in times.items()}


def timed(run: Callable[[Input], object]) -> Callable[[Input], float]:
    """Return a function that returns the microseconds of a run."""

    def measured(value: Input) -> float:
        start = time.perf_counter()
        run(value)
        return (time.perf_counter() - start) * 1e6

    return measured


def machine() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def report(title: str, rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print rows as a table, and save them as JSON if a file is given."""
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
