"""The metrics of one process, and their page in Prometheus' text format.

The engine, the routes, the streams and the jobs record them, on the event loop's thread. Recording
is on the path of every request, so it only appends to a list, which is added to the counts in one
go. Prometheus' own objects take a lock and microseconds for each record. They are built from the
counts when the page is requested.

A counter whose labels are known before its first event starts at 0 (`start_lanes`, `start_models`),
as `rate()` does not see the event that creates a series.
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

# 50 µs to 26 s in steps of 1.5: path queries and full distributions on one scale.
_SECONDS = tuple(50e-6 * 1.5**i for i in range(33))
_ROWS = tuple(float(2**i) for i in range(17))

_ROUTE = ("route", "model")
_LANE = ("lane",)

# The name after "hsoftmax_", the help text and the labels.
_COUNTERS = {
    "requests": (
        "Requests answered, by error code ('ok' where there was none).",
        ("route", "model", "version", "status", "code"),
    ),
    "key_requests": ("Requests with a valid API key, by its name.", ("key", "status")),
    "rows": ("Rows of inputs.", _ROUTE),
    "streamed_rows": ("Rows of streams, by outcome: scored or failed.", ("model", "outcome")),
    "blocks_opened": ("Blocks that top-k opened.", ("model",)),
    "batched_requests": ("Requests in batches.", _LANE),
    "job_rows": ("Rows that jobs finished: scored, or failed.", ("model", "outcome")),
    "rejected": ("Requests rejected as too much was waiting.", _LANE),
    "cancelled": ("Requests whose client left while they waited or ran.", _LANE),
    "expired": ("Requests that had no answer within their time.", _LANE),
    "store_failures": ("Times that the model store could not be read.", ()),
    "store_downloaded_bytes": ("Bytes of bundles that came from the model store.", ()),
}
_GAUGES = {
    "jobs": ("Jobs that are known, by status.", ("status",)),
    "ready": ("1 when ready, else 0.", ()),
    "queue_depth": ("Requests waiting.", _LANE),
    "store_up": ("1 if the model store was read at the last attempt, else 0.", ()),
    "store_refused_versions": ("Versions of the model store that cannot be downloaded.", ()),
    "resident_memory_bytes": (
        "Memory in use; `file` is mapped weights and libraries, which processes share.",
        ("kind",),
    ),
    "bundle_info": (
        "1 for each bundle that is served.",
        ("model", "version", "digest", "family", "device"),
    ),
    "task_info": (
        "1 for each task of each bundle; `runtime` is native (kernels) or onnxruntime (graphs), "
        "`device` cpu or cuda.",
        ("model", "version", "task", "runtime", "device"),
    ),
}
_HISTOGRAMS = {
    "request_seconds": ("Whole time in the service.", (*_ROUTE, "version"), _SECONDS),
    "queue_seconds": ("Time waiting for a thread.", _ROUTE, _SECONDS),
    "compute_seconds": ("Time in the graph.", _ROUTE, _SECONDS),
    "batch_rows": ("Rows of the requests in a batch.", _LANE, _ROWS),
}

# Counters with a series from the start: for each lane; and for each model, with these labels.
_BY_LANE = ("batched_requests", "rejected", "cancelled", "expired")
_BY_MODEL: dict[str, list[tuple[str, ...]]] = {
    "streamed_rows": [("scored",), ("failed",)],
    "job_rows": [("scored",), ("failed",)],
    "blocks_opened": [()],
}

_MAX_KEY_NAMES = 1000  # later names of API keys count as one, as a key file may change for ever
_OTHER_KEYS = "other"

_MAX_PENDING = 64  # records that are added to the counts together

LabelValues = tuple[object, ...]


class Histogram:
    """Histogram without locks. Updated only from the event loop thread.

    Attributes:
        bounds: the upper bounds of the buckets
        counts: the values in each bucket, and those above the last bound
        total: the sum of all values
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Add one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        """Add the counts of a histogram with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Metrics:
    """Counters, gauges and histograms by name and labels, as plain values."""

    def __init__(self) -> None:
        self.counters: dict[str, defaultdict[LabelValues, float]] = {
            name: defaultdict(float) for name in _COUNTERS
        }
        self.gauges: dict[str, dict[LabelValues, float]] = {name: {} for name in _GAUGES}
        self.histograms: dict[str, dict[LabelValues, Histogram]] = {
            name: {} for name in _HISTOGRAMS
        }
        self._routes: tuple[str, ...] = ()
        self._pending_requests: list[tuple[str, str, str, int, str, float]] = []
        self._pending_runs: list[tuple[str, str, int, float, float]] = []
        self._key_names: set[str] = set()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def start_lanes(self, lanes: Iterable[str]) -> None:
        """Start the counters of every lane at 0."""
        for lane in lanes:
            for name in _BY_LANE:
                self.counters[name][lane,] += 0

    def start_routes(self, routes: Iterable[str]) -> None:
        """Set the routes that answer queries of a model, for `start_models`."""
        self._routes = tuple(routes)

    def start_models(self, versions: Iterable[tuple[str, str]]) -> None:
        """Start the counters of every model and version at 0, unless they counted already."""
        for model, version in versions:
            for name, rest in _BY_MODEL.items():
                for labels in rest:
                    self.counters[name][model, *labels] += 0
            for route in self._routes:
                self.counters["requests"][route, model, version, 200, "ok"] += 0
                self.counters["rows"][route, model] += 0

    def request(
        self, route: str, model: str, version: str, status: int, code: str, seconds: float
    ) -> None:
        """Record one answered request."""
        self._pending_requests.append((route, model, version, status, code, seconds))
        if len(self._pending_requests) >= _MAX_PENDING:
            self._flush()

    def key_request(self, key: str, status: int) -> None:
        """Record one answered request of an API key."""
        self.counters["key_requests"][self._key_label(key), status] += 1

    def computed(self, route: str, model: str, rows: int, queue: float, compute: float) -> None:
        """Record one run of a graph."""
        self._pending_runs.append((route, model, rows, queue, compute))
        if len(self._pending_runs) >= _MAX_PENDING:
            self._flush()

    def streamed(self, model: str, scored: int, failed: int) -> None:
        """Record the rows of a stream."""
        self.counters["streamed_rows"][model, "scored"] += scored
        self.counters["streamed_rows"][model, "failed"] += failed

    def blocks_opened(self, model: str, blocks: int) -> None:
        """Record the blocks that a top-k search opened."""
        self.counters["blocks_opened"][model,] += blocks

    def batch(self, lane: str, rows: int, requests: int) -> None:
        """Record one batch."""
        self.counters["batched_requests"][lane,] += requests
        self._histogram("batch_rows", (lane,)).add(rows)

    def unanswered(self, lane: str, outcome: str) -> None:
        """Record a request that was `rejected`, `cancelled` or `expired`."""
        self.counters[outcome][lane,] += 1

    def ready(self, ready: bool) -> None:
        """Set the gauge of readiness."""
        self.gauges["ready"][()] = float(ready)

    def waiting(self, requests: Mapping[str, int]) -> None:
        """Set the number of requests that wait in each lane."""
        for lane, number in requests.items():
            self.gauges["queue_depth"][lane,] = number

    def bundles(self, loaded: Iterable[LabelValues]) -> None:
        """Set the loaded bundles, each by the labels of `bundle_info`."""
        self.gauges["bundle_info"] = dict.fromkeys(loaded, 1.0)

    def tasks(self, loaded: Iterable[LabelValues]) -> None:
        """Set the tasks of the loaded bundles, each by the labels of `task_info`."""
        self.gauges["task_info"] = dict.fromkeys(loaded, 1.0)

    def jobs(self, by_status: Mapping[str, int]) -> None:
        """Set the number of jobs of each status, and remove other statuses."""
        self.gauges["jobs"] = {(status,): float(n) for status, n in by_status.items()}

    def job_rows(self, model: str, scored: int, failed: int) -> None:
        """Record rows that a job has finished."""
        self.counters["job_rows"][model, "scored"] += scored
        self.counters["job_rows"][model, "failed"] += failed

    def store(self, *, up: bool, refused: int, downloaded_bytes: int) -> None:
        """Record an attempt to read the model store, and the bytes that it has downloaded."""
        self.gauges["store_up"][()] = float(up)
        self.gauges["store_refused_versions"][()] = float(refused)
        self.counters["store_failures"][()] += not up
        self.counters["store_downloaded_bytes"][()] += downloaded_bytes

    def memory(self, by_kind: Mapping[str, int]) -> None:
        """Set the resident memory of each kind."""
        for kind, number in by_kind.items():
            self.gauges["resident_memory_bytes"][kind,] = number

    def collected(self) -> Iterable[Metric]:
        """All metrics as Prometheus' objects."""
        return self._registry.collect()

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Build Prometheus' objects; the registry calls this."""
        self._flush()
        for name, (text, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(f"hsoftmax_{name}", text, labels=labels)
            for values, number in self.counters[name].items():
                counter.add_metric(_label_values(values), number)
            yield counter
        for name, (text, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"hsoftmax_{name}", text, labels=labels)
            for values, number in self.gauges[name].items():
                gauge.add_metric(_label_values(values), number)
            yield gauge
        for name, (text, labels, _) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"hsoftmax_{name}", text, labels=labels)
            for values, histogram in self.histograms[name].items():
                family.add_metric(_label_values(values), _buckets(histogram), histogram.total)
            yield family

    def _flush(self) -> None:
        """Add the pending records to the counts."""
        requests, self._pending_requests = self._pending_requests, []
        for route, model, version, status, code, seconds in requests:
            self.counters["requests"][route, model, version, status, code] += 1
            self._histogram("request_seconds", (route, model, version)).add(seconds)
        graph_runs, self._pending_runs = self._pending_runs, []
        for route, model, rows, queue, compute in graph_runs:
            self.counters["rows"][route, model] += rows
            self._histogram("queue_seconds", (route, model)).add(queue)
            self._histogram("compute_seconds", (route, model)).add(compute)

    def _key_label(self, key: str) -> str:
        if key not in self._key_names and len(self._key_names) >= _MAX_KEY_NAMES:
            return _OTHER_KEYS
        self._key_names.add(key)
        return key

    def _histogram(self, name: str, labels: LabelValues) -> Histogram:
        found = self.histograms[name].get(labels)
        if found is None:
            found = self.histograms[name][labels] = Histogram(_HISTOGRAMS[name][2])
        return found


def _label_values(values: LabelValues) -> list[str]:
    return [str(value) for value in values]


def _upper_bound(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(bound)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each upper bound with the number of values at or below it."""
    cumulative, buckets = 0, []
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        cumulative += count
        buckets.append((_upper_bound(bound), float(cumulative)))
    return buckets
