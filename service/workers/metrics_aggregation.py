"""What each worker has counted, added up to what all have.

A snapshot is plain data, so that it can be sent and kept. Counters and histograms add up; gauges
do by their meaning, and those that belong to one process say which.
"""

from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

_SUMS = frozenset({"hsoftmax_queue_depth"})
_LEAST = frozenset({"hsoftmax_ready"})
_MOST = frozenset({"hsoftmax_bundle_info", "hsoftmax_jobs"})
_WORKER = "worker"
_COUNTING = ("counter", "histogram")

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]


class Family(msgspec.Struct, frozen=True):
    """One metric: its samples by their names and labels."""

    name: str
    text: str
    kind: str
    samples: list[tuple[str, Labels, float]]


class Snapshot(msgspec.Struct, frozen=True):
    """All metrics of one process, at one moment."""

    families: list[Family]


def snapshot(metrics: Iterable[Metric]) -> Snapshot:
    """Taken of what a registry collects."""
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


def carried(before: Snapshot) -> Snapshot:
    """What goes on counting for a worker that is no more: all but its gauges."""
    return Snapshot([one for one in before.families if one.kind in _COUNTING])


def gauges(one: Snapshot) -> Snapshot:
    """The rest: what is the case now."""
    return Snapshot([family for family in one.families if family.kind not in _COUNTING])


def added(snapshots: Mapping[str, Snapshot]) -> Snapshot:
    """The snapshots of all workers as one; keys say which worker's each is."""
    families: dict[str, Family] = {}
    values: dict[str, dict[Key, float]] = {}
    for worker, one in snapshots.items():
        for family in one.families:
            families.setdefault(family.name, family)
            into = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                _add(family, into, (name, labels), value, worker)
    return Snapshot(
        [
            Family(name, family.text, family.kind, [(*key, v) for key, v in values[name].items()])
            for name, family in families.items()
        ]
    )


def page(whole: Snapshot) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(whole))
    return generate_latest(registry)


def _add(family: Family, into: dict[Key, float], key: Key, value: float, worker: str) -> None:
    if family.kind in _COUNTING or family.name in _SUMS:
        into[key] = into.get(key, 0.0) + value
    elif family.name in _LEAST:
        into[key] = min(into.get(key, value), value)
    elif family.name in _MOST:
        into[key] = max(into.get(key, value), value)
    else:
        name, labels = key
        into[name, (*labels, (_WORKER, worker))] = value


class _Collected:
    """A snapshot as a collector."""

    def __init__(self, whole: Snapshot) -> None:
        self._whole = whole

    def collect(self) -> Iterable[Metric]:
        for family in self._whole.families:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric
