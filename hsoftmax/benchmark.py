"""Measures the time of each task of a bundle on this machine."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from hsoftmax import bundle

from .models.arrays import Array
from .runtime.sessions import Session

_MIN_RUNS = 3


@dataclass(frozen=True)
class Measurement:
    """The median time of one task at one batch size."""

    task: str
    rows: int
    milliseconds: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.milliseconds * 1e3

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "rows_per_second": self.rows_per_second}


def measure(
    manifest: bundle.Manifest,
    sessions: Mapping[str, Session],
    *,
    batches: tuple[int, ...],
    seconds: float,
) -> Iterator[Measurement]:
    """Yields the time of every task at every batch size; each takes about `seconds`."""
    rng = np.random.default_rng(0)
    for task, session in sessions.items():
        for rows in batches:
            feeds = {port.name: _values(port, rows, manifest, rng) for port in session.graph.inputs}
            median_s = _median_seconds(lambda s=session, f=feeds: s.run(f), seconds)  # type: ignore[misc]
            yield Measurement(task, rows, median_s * 1e3)


def _median_seconds(call: Callable[[], object], seconds: float) -> float:
    call()
    times: list[float] = []
    deadline = perf_counter() + seconds
    while len(times) < _MIN_RUNS or perf_counter() < deadline:
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return median(times)


def _values(
    port: bundle.Port, rows: int, manifest: bundle.Manifest, rng: np.random.Generator
) -> Array:
    """Returns random input of ordinary size: one pair for each row, one sample, ten targets."""
    sizes = {"batch": rows, "pairs": rows}
    shape = [sizes.get(size, 1) if isinstance(size, str) else size for size in port.shape]
    match port.name:
        case "row":
            return np.arange(rows)
        case "target":
            return rng.integers(0, manifest.num_targets or 1, shape)
        case "k":
            return np.array([min(10, manifest.num_targets or 1)])
        case "noise":
            return rng.random(shape, dtype=np.float32)
        case _ if port.dtype == "int64":
            return np.zeros(shape, dtype=np.int64)
        case _:
            return rng.standard_normal(shape, dtype=np.float32)
