"""Aggregates the metrics of all workers of a service.

A snapshot is plain data, so that it can be sent and stored. Counters and histograms are summed.
Gauges are summed, or their minimum or maximum is taken, by their meaning. Gauges of one process get
the label `worker`. The channel and the control module call it.
"""

from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

_SUMMED = frozenset({"hsoftmax_queue_depth"})
_MINIMUM = frozenset({"hsoftmax_ready", "hsoftmax_store_up"})
_MAXIMUM = frozenset(
    {"hsoftmax_bundle_info", "hsoftmax_jobs", "hsoftmax_store_refused_versions",
     "hsoftmax_task_info"}
)  # fmt: skip
_WORKER = "worker"
_ACCUMULATING = ("counter", "histogram")

Labels = tuple[tuple[str, str], ...]
SeriesKey = tuple[str, Labels]


class Family(msgspec.Struct, frozen=True):
    """One metric: its samples by name and labels."""

    name: str
    text: str
    kind: str
    samples: list[tuple[str, Labels, float]]


class Snapshot(msgspec.Struct, frozen=True):
    """All metrics of one process at one moment."""

    families: list[Family]


def snapshot(metrics: Iterable[Metric]) -> Snapshot:
    """Take a snapshot of what a registry collects."""
    return Snapshot(
        [
            Family(
                one.name,
                one.documentation,
                one.type,
                [(s.name, tuple(s.labels.items()), s.value) for s in one.samples],
            )
            for one in metrics
        ]
    )


def without_gauges(one: Snapshot) -> Snapshot:
    """The counters and histograms of a snapshot, which a successor continues."""
    return Snapshot([family for family in one.families if family.kind in _ACCUMULATING])


def only_gauges(one: Snapshot) -> Snapshot:
    """The gauges of a snapshot, which hold for this moment only."""
    return Snapshot([family for family in one.families if family.kind not in _ACCUMULATING])


def aggregate(snapshots: Mapping[str, Snapshot]) -> Snapshot:
    """Merge the snapshots of all workers; the keys are the workers' numbers."""
    families: dict[str, Family] = {}
    values: dict[str, dict[SeriesKey, float]] = {}
    for worker, one in snapshots.items():
        for family in one.families:
            families.setdefault(family.name, family)
            totals = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                _add(family, totals, (name, labels), value, worker)
    return Snapshot(
        [
            Family(name, family.text, family.kind, [(*key, v) for key, v in values[name].items()])
            for name, family in families.items()
        ]
    )


def page(merged: Snapshot) -> bytes:
    """The snapshot in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(merged))
    return generate_latest(registry)


def _add(
    family: Family, totals: dict[SeriesKey, float], key: SeriesKey, value: float, worker: str
) -> None:
    """Add one sample of a worker to the totals of its metric."""
    if family.kind in _ACCUMULATING or family.name in _SUMMED:
        totals[key] = totals.get(key, 0.0) + value
    elif family.name in _MINIMUM:
        totals[key] = min(totals.get(key, value), value)
    elif family.name in _MAXIMUM:
        totals[key] = max(totals.get(key, value), value)
    else:
        name, labels = key
        totals[name, (*labels, (_WORKER, worker))] = value


class _SnapshotCollector:
    """A Prometheus collector that yields a snapshot."""

    def __init__(self, merged: Snapshot) -> None:
        self._merged = merged

    def collect(self) -> Iterable[Metric]:
        for family in self._merged.families:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric
