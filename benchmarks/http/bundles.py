"""The bundle that all are asked about: random weights, two levels of equal size."""

import io
import json
import math
from pathlib import Path

import numpy as np

import exporter
import models
from models.arrays import Float32

HIDDEN = 256


def export(repository: Path, targets: int) -> Path:
    """`<repository>/random/1` with so many targets."""
    rng = np.random.default_rng(0)
    clusters = math.isqrt(targets)
    block = -(-targets // clusters)

    def normal(*shape: int) -> Float32:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(math.sqrt(HIDDEN))

    model = models.from_theano(
        normal(HIDDEN, clusters),
        normal(clusters),
        normal(clusters, HIDDEN, block),
        normal(clusters, block),
        num_targets=targets,
    )
    folder = repository / "random" / "1"
    to = exporter.destination(folder)
    exporter.export_model(model, to)
    return folder


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
