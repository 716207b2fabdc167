"""Prometheus metrics of one app, in a registry of its own."""

from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

# Else every counter comes with a second one, of when it began.
disable_created_metrics()  # type: ignore[no-untyped-call]

# 50 µs to 26 s, each half as long again: path queries and full distributions on one scale.
_SECONDS = tuple(50e-6 * 1.5**i for i in range(33))


class Metrics:
    """The service's counters; children are looked up once per set of labels."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "hsoftmax_requests",
            "Requests answered, by error code ('ok' where there was none).",
            ("route", "model", "status", "code"),
            registry=registry,
        )
        self._request_seconds = _seconds("request", "Whole time in the service.", registry)
        self._queue_seconds = _seconds("queue", "Time waiting for a thread.", registry)
        self._compute_seconds = _seconds("compute", "Time in the graph.", registry)
        labels = ("route", "model")
        self._rows = Counter("hsoftmax_rows", "Rows of inputs.", labels, registry=registry)
        self._blocks = Counter(
            "hsoftmax_blocks_opened", "Blocks that top-k opened.", ("model",), registry=registry
        )
        self._bundles = Gauge(
            "hsoftmax_bundle_info",
            "1 for each bundle that is served.",
            ("model", "version", "digest", "family", "device"),
            registry=registry,
        )
        self.ready = Gauge("hsoftmax_ready", "1 when ready, else 0.", registry=registry)
        # Looking children up by label costs more than counting, so keep what was found.
        self._request = cache(self._requests.labels)
        self._durations = cache(self._durations_of)

    def request(self, route: str, model: str, status: int, code: str, seconds: float) -> None:
        """Count one answered request."""
        self._request(route, model, str(status), code).inc()
        self._durations(route, model)[0].observe(seconds)

    def computed(self, route: str, model: str, rows: int, queue: float, compute: float) -> None:
        """Count one run of a graph."""
        _, queue_seconds, compute_seconds, counter = self._durations(route, model)
        queue_seconds.observe(queue)
        compute_seconds.observe(compute)
        counter.inc(rows)

    def blocks_opened(self, model: str, blocks: int) -> None:
        self._blocks.labels(model).inc(blocks)

    def bundle(self, model: str, version: str, digest: str, family: str, device: str) -> None:
        """Say that a bundle is served."""
        self._bundles.labels(model, version, digest, family, device).set(1)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _durations_of(
        self, route: str, model: str
    ) -> tuple[Histogram, Histogram, Histogram, Counter]:
        return (
            self._request_seconds.labels(route, model),
            self._queue_seconds.labels(route, model),
            self._compute_seconds.labels(route, model),
            self._rows.labels(route, model),
        )


def _seconds(what: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(
        f"hsoftmax_{what}_seconds", text, ("route", "model"), buckets=_SECONDS, registry=registry
    )
