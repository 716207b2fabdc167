"""Counts of inference requests by version of a bundle, in the form of the Open Inference Protocol.

The endpoints of the operations, of `infer` and of gRPC record them, on the event loop's thread.
Streams and jobs are not requests of one inference, so they do not count.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import time_ns
from typing import Any

Json = dict[str, Any]
Executions = Sequence[tuple[int, float]]  # rows and seconds of batches

_PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
          "cache_hit", "cache_miss")  # fmt: skip
_BATCH_PARTS = ("compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class Duration:
    """A count of events, and the nanoseconds that all of them took."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        if seconds > 0:
            self.ns += int(seconds * 1e9)

    def add_ns(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class VersionCounts:
    """Counts of one version of a bundle.

    Attributes:
        parts: the parts of all requests
        batches: the runs of graphs, by their rows
    """

    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    parts: dict[str, Duration] = field(default_factory=lambda: {one: Duration() for one in _PARTS})
    batches: defaultdict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))


@dataclass(frozen=True, slots=True)
class RequestSeconds:
    """The time of one request, in seconds, and of its parts."""

    total: float
    queue: float
    compute: float
    output: float


class Statistics:
    """Counts of all versions of one process."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], VersionCounts] = defaultdict(VersionCounts)

    def executed(self, model: str, version: str, executions: Executions) -> None:
        """Count runs of graphs."""
        counts = self._counts[model, version]
        counts.execution_count += len(executions)
        for rows, seconds in executions:
            counts.batches[rows].add(seconds)

    def succeeded(self, model: str, version: str, rows: int, seconds: RequestSeconds) -> None:
        """Count an answered request."""
        counts = self._counts[model, version]
        counts.last_inference = time_ns() // 1_000_000
        counts.inference_count += rows
        parts = counts.parts
        parts["success"].add(seconds.total)
        parts["queue"].add(seconds.queue)
        parts["compute_infer"].add(seconds.compute)
        parts["compute_output"].add(seconds.output)
        rest = seconds.total - seconds.queue - seconds.compute - seconds.output
        parts["compute_input"].add(rest)

    def failed(self, model: str, version: str, seconds: float) -> None:
        """Count a request that got an error."""
        self._counts[model, version].parts["fail"].add(seconds)

    def listed(self) -> list[Json]:
        """Return the counts of each version as an entry of `model_stats`."""
        return [_entry(*key, counts) for key, counts in self._counts.items()]


def model_statistics(versions: Iterable[tuple[str, str]], listed: Iterable[Json]) -> list[Json]:
    """Return one entry for each version, with the entries of all workers added together."""
    counts = {key: VersionCounts() for key in versions}
    for entry in listed:
        if (total := counts.get((entry["name"], entry["version"]))) is not None:
            _add(total, entry)
    return [_entry(*key, one) for key, one in sorted(counts.items(), key=_key)]


def add_up(entries: Iterable[Json]) -> list[Json]:
    """Return one entry for each version, with all its entries added together."""
    counts: defaultdict[tuple[str, str], VersionCounts] = defaultdict(VersionCounts)
    for entry in entries:
        _add(counts[entry["name"], entry["version"]], entry)
    return [_entry(*key, one) for key, one in counts.items()]


def _key(item: tuple[tuple[str, str], VersionCounts]) -> tuple[str, int]:
    (name, version), _ = item
    return name, int(version)


def _entry(model: str, version: str, counts: VersionCounts) -> Json:
    return {
        "name": model,
        "version": version,
        "last_inference": counts.last_inference,
        "inference_count": counts.inference_count,
        "execution_count": counts.execution_count,
        "inference_stats": {name: _duration(one) for name, one in counts.parts.items()},
        "response_stats": {},
        "batch_stats": [_batch(rows, one) for rows, one in sorted(counts.batches.items())],
        "memory_usage": [],
    }


def _batch(rows: int, duration: Duration) -> Json:
    """Return the runs of one size. Their inputs and outputs are those of requests, not of runs."""
    nothing = {"count": duration.count, "ns": 0}
    parts = dict.fromkeys(_BATCH_PARTS, nothing)
    return {"batch_size": rows, **parts, "compute_infer": _duration(duration)}


def _duration(duration: Duration) -> Json:
    return {"count": duration.count, "ns": duration.ns}


def _add(total: VersionCounts, entry: Json) -> None:
    total.last_inference = max(total.last_inference, entry["last_inference"])
    total.inference_count += entry["inference_count"]
    total.execution_count += entry["execution_count"]
    for name, one in entry["inference_stats"].items():
        total.parts[name].add_ns(one["ns"], one["count"])
    for batch in entry["batch_stats"]:
        infer = batch["compute_infer"]
        total.batches[batch["batch_size"]].add_ns(infer["ns"], infer["count"])
