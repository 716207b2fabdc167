"""Softmaxes lowered into running sessions, one for each task, and what all are held to."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hsoftmax.bundle import Precision
from hsoftmax.exporter.graphs import bind, lower
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.exporter.storage.weights_file import write_weights
from hsoftmax.models import Model, Softmax, reference
from hsoftmax.runtime.devices import CUDA, DENSE, ON_CUDA
from hsoftmax.runtime.sessions import open_session

TOLERANCE = {"rtol": 2e-6, "atol": 1e-5}  # float32 graph against float64 reference

# Earlier versions cannot multiply no rows; the service asks no graph about none.
needs_empty = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32),
    reason="products of no rows need ONNX Runtime 1.32",
)


class Running:
    """The tasks of one model, run by ONNX Runtime over a weights file."""

    def __init__(self, model: Model, directory: Path, precision: Precision = "fp32") -> None:
        tensors = stored_tensors(model, precision)
        table = {t.name: t for t in write_weights(directory / "weights.bin", tensors)}
        self.sessions = {}
        for task, lowered in lower(model, tensors).items():
            path = directory / f"{task}.onnx"
            path.write_bytes(bind(lowered.proto, lowered.views, table).SerializeToString())
            self.sessions[task] = _open(path)
        self.sizes = {p.stem: p.stat().st_size for p in directory.glob("*.onnx")}

    def __call__(self, task: str, **inputs):
        return self.sessions[task].run(None, inputs)

    def top_k(self, hidden, k: int, max_blocks: int = 0):
        return self("top_k", hidden=hidden, k=np.array([k]), max_blocks=np.array([max_blocks]))


def _open(path: Path) -> onnxruntime.InferenceSession:
    """A session; on CUDA, as in the service, where the tests are to run there (`make test-gpu`)."""
    if os.environ.get("HSOFTMAX_DEVICE") != "cuda" or path.stem not in DENSE:
        return open_session(path)
    onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(path, providers=list(ON_CUDA.providers_of(path.stem)))
    assert session.get_providers()[0] == CUDA
    return session


def assert_every_target(model: Softmax, run: Running, hidden, scale: float = 1.0) -> None:
    """The full distribution, and each target by itself, are the reference's at this scale."""
    full = reference(model).log_probs(model, hidden)
    tolerance = TOLERANCE | {"atol": TOLERANCE["atol"] * scale}
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **tolerance)
    row, target = np.divmod(np.arange(full.size)[::-1], model.num_targets)
    alone = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(alone, full[row, target], **tolerance)
