"""The bundle that all are asked about: random weights, two levels of equal size."""

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
    """`<repository>/random/1` with so many targets."""
    folder = repository / "random" / "1"
    exporter.export_model(random_model(targets, HIDDEN), exporter.parse_destination(folder))
    return folder


def random_model(targets: int, hidden: int) -> models.HierarchicalSoftmax:
    """About as many clusters as each has targets."""
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
    """Drawn from all that the bundle has: who asks for the same one always finds it cached."""
    manifest = open_bundle(repository / "random" / "1").manifest
    drawn = np.random.default_rng(0).integers(manifest.num_targets or 0, size=count)
    return [int(target) for target in drawn]


def query(rows: int = 1, *, target: int | None = None, seed: int = 1) -> str:
    """JSON of so many rows, one target each, or without any."""
    inputs = np.random.default_rng(seed).standard_normal((rows, HIDDEN)).round(6).tolist()
    asked = {} if target is None else {"targets": [target] * rows}
    return json.dumps({"inputs": inputs, **asked})


def npy_query(rows: int = 1, *, seed: int = 1) -> bytes:
    """The same rows as `.npy`; targets go into the URL."""
    inputs = np.random.default_rng(seed).standard_normal((rows, HIDDEN)).astype(np.float32)
    file = io.BytesIO()
    np.save(file, inputs)
    return file.getvalue()
