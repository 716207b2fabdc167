"""What one app counts, and Prometheus' page of it.

Counting is on the way of every request, so that what each has is only put down, and added up for
many of them in one go; all in the event loop's thread. Prometheus' own objects take a lock and
microseconds for each. They are made of the counts when the page is asked for.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

# 50 µs to 26 s, each half as long again: path queries and full distributions on one scale.
_SECONDS = tuple(50e-6 * 1.5**i for i in range(33))
_ROWS = tuple(float(2**i) for i in range(17))

_ROUTE = ("route", "model")
_LANE = ("lane",)

# By name after "hsoftmax_": what it counts, and its labels.
_COUNTERS = {
    "requests": (
        "Requests answered, by error code ('ok' where there was none).",
        ("route", "model", "status", "code"),
    ),
    "rows": ("Rows of inputs.", _ROUTE),
    "streamed_rows": ("Rows of streams, by outcome: scored or failed.", ("model", "outcome")),
    "blocks_opened": ("Blocks that top-k opened.", ("model",)),
    "batched_requests": ("Requests in batches.", _LANE),
    "job_rows": ("Rows that jobs finished: scored, or failed.", ("model", "outcome")),
    "rejected": ("Requests rejected as too much was waiting.", _LANE),
    "cancelled": ("Requests whose client left while they waited or ran.", _LANE),
    "expired": ("Requests that had no answer within their time.", _LANE),
}
_GAUGES = {
    "jobs": ("Jobs that are known, by status.", ("status",)),
    "ready": ("1 when ready, else 0.", ()),
    "queue_depth": ("Requests waiting.", _LANE),
    "resident_memory_bytes": (
        "Memory in use; `file` is mapped weights and libraries, which processes share.",
        ("kind",),
    ),
    "bundle_info": (
        "1 for each bundle that is served.",
        ("model", "version", "digest", "family", "device"),
    ),
}
_SPREADS = {
    "request_seconds": ("Whole time in the service.", _ROUTE, _SECONDS),
    "queue_seconds": ("Time waiting for a thread.", _ROUTE, _SECONDS),
    "compute_seconds": ("Time in the graph.", _ROUTE, _SECONDS),
    "batch_rows": ("Rows of the requests in a batch.", _LANE, _ROWS),
}

_MANY = 64  # notes that are added up together

Labels = tuple[object, ...]


class Histogram:
    """How many values fell at or below each bound and above the one before, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        """Add another process's, which has the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Metrics:
    """Counters, gauges and histograms by name and labels; plain values, so that they add up."""

    def __init__(self) -> None:
        self.counters: dict[str, defaultdict[Labels, float]] = {
            name: defaultdict(float) for name in _COUNTERS
        }
        self.gauges: dict[str, dict[Labels, float]] = {name: {} for name in _GAUGES}
        self.spreads: dict[str, dict[Labels, Histogram]] = {name: {} for name in _SPREADS}
        self._answered: list[tuple[str, str, int, str, float]] = []
        self._runs: list[tuple[str, str, int, float, float]] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def request(self, route: str, model: str, status: int, code: str, seconds: float) -> None:
        """Count one answered request."""
        self._answered.append((route, model, status, code, seconds))
        if len(self._answered) >= _MANY:
            self._add_up()

    def computed(self, route: str, model: str, rows: int, queue: float, compute: float) -> None:
        """Count one run of a graph."""
        self._runs.append((route, model, rows, queue, compute))
        if len(self._runs) >= _MANY:
            self._add_up()

    def streamed(self, model: str, scored: int, failed: int) -> None:
        """Count the rows of a stream."""
        self.counters["streamed_rows"][model, "scored"] += scored
        self.counters["streamed_rows"][model, "failed"] += failed

    def blocks_opened(self, model: str, blocks: int) -> None:
        self.counters["blocks_opened"][model,] += blocks

    def batch(self, lane: str, rows: int, requests: int) -> None:
        """Count one batch."""
        self.counters["batched_requests"][lane,] += requests
        self._spread("batch_rows", (lane,)).add(rows)

    def given_up(self, lane: str, why: str) -> None:
        """Count a request that was `rejected`, `cancelled` or `expired`."""
        self.counters[why][lane,] += 1

    def ready(self, ready: bool) -> None:
        """Say whether requests may be sent here."""
        self.gauges["ready"][()] = float(ready)

    def waiting(self, requests: Mapping[str, int]) -> None:
        """Say how many requests wait in each lane."""
        for lane, number in requests.items():
            self.gauges["queue_depth"][lane,] = number

    def bundles(self, served: Iterable[Labels]) -> None:
        """Say which bundles are served now, by the labels of `bundle_info`."""
        self.gauges["bundle_info"] = dict.fromkeys(served, 1.0)

    def jobs(self, by_status: Mapping[str, int]) -> None:
        """Say how many jobs there are, in place of those that were."""
        self.gauges["jobs"] = {(status,): float(n) for status, n in by_status.items()}

    def job_rows(self, model: str, scored: int, failed: int) -> None:
        """Count rows that a job has finished."""
        self.counters["job_rows"][model, "scored"] += scored
        self.counters["job_rows"][model, "failed"] += failed

    def memory(self, by_kind: Mapping[str, int]) -> None:
        """Say how much memory is resident."""
        for kind, number in by_kind.items():
            self.gauges["resident_memory_bytes"][kind,] = number

    def collected(self) -> Iterable[Metric]:
        """All of it, as Prometheus' objects."""
        return self._registry.collect()

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        self._add_up()
        for name, (text, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(f"hsoftmax_{name}", text, labels=labels)
            for values, number in self.counters[name].items():
                counter.add_metric(_texts(values), number)
            yield counter
        for name, (text, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"hsoftmax_{name}", text, labels=labels)
            for values, number in self.gauges[name].items():
                gauge.add_metric(_texts(values), number)
            yield gauge
        for name, (text, labels, _) in _SPREADS.items():
            histogram = HistogramMetricFamily(f"hsoftmax_{name}", text, labels=labels)
            for values, spread in self.spreads[name].items():
                histogram.add_metric(_texts(values), _buckets(spread), spread.total)
            yield histogram

    def _add_up(self) -> None:
        """Count what has been put down."""
        answered, self._answered = self._answered, []
        for route, model, status, code, seconds in answered:
            self.counters["requests"][route, model, status, code] += 1
            self._spread("request_seconds", (route, model)).add(seconds)
        runs, self._runs = self._runs, []
        for route, model, rows, queue, compute in runs:
            self.counters["rows"][route, model] += rows
            self._spread("queue_seconds", (route, model)).add(queue)
            self._spread("compute_seconds", (route, model)).add(compute)

    def _spread(self, name: str, labels: Labels) -> Histogram:
        found = self.spreads[name].get(labels)
        if found is None:
            found = self.spreads[name][labels] = Histogram(_SPREADS[name][2])
        return found


def _texts(values: Labels) -> list[str]:
    return [str(value) for value in values]


def _bound(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(bound)


def _buckets(spread: Histogram) -> list[tuple[str, float]]:
    """Upper bounds with how many values are at or below each."""
    cumulative, buckets = 0, []
    for bound, count in zip((*spread.bounds, math.inf), spread.counts, strict=True):
        cumulative += count
        buckets.append((_bound(bound), float(cumulative)))
    return buckets
