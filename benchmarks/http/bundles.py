"""The bundle of the benchmarks, with random weights and two levels of equal size, and queries."""

import io
import json
import math
from pathlib import Path

import numpy as np

from hsoftmax import exporter, models
from hsoftmax.bundle import open_bundle
from hsoftmax.models.arrays import Float32

HIDDEN = 256


def export(repository: Path, targets: int) -> Path:
    """Export `<repository>/random/1` with this number of targets."""
    folder = repository / "random" / "1"
    exporter.export_model(random_model(targets, HIDDEN), exporter.parse_destination(folder))
    return folder


def random_model(targets: int, hidden: int) -> models.HierarchicalSoftmax:
    """Build a model that has about as many clusters as a cluster has targets."""
    rng = np.random.default_rng(0)
    clusters = math.isqrt(targets)
    block = -(-targets // clusters)

    def normal(*shape: int) -> Float32:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(math.sqrt(hidden))

    return models.from_theano(
        normal(hidden, clusters),
        normal(clusters),
        normal(clusters, hidden, block),
        normal(clusters, block),
        num_targets=targets,
    )


def some_targets(repository: Path, count: int = 256) -> list[int]:
    """Draw targets from all of the bundle; a single target would always be in the CPU cache."""
    manifest = open_bundle(repository / "random" / "1").manifest
    drawn = np.random.default_rng(0).integers(manifest.num_targets or 0, size=count)
    return [int(target) for target in drawn]


def query(rows: int = 1, *, target: int | None = None, seed: int = 1) -> str:
    """Return the JSON query of random rows, with one target a row or without targets."""
    inputs = np.random.default_rng(seed).standard_normal((rows, HIDDEN)).round(6).tolist()
    fields = {} if target is None else {"targets": [target] * rows}
    return json.dumps({"inputs": inputs, **fields})


def npy_query(rows: int = 1, *, seed: int = 1) -> bytes:
    """Return random rows as .npy; targets are in the URL."""
    inputs = np.random.default_rng(seed).standard_normal((rows, HIDDEN)).astype(np.float32)
    file = io.BytesIO()
    np.save(file, inputs)
    return file.getvalue()
