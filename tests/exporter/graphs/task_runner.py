"""Lowers a model into ONNX Runtime sessions, and holds checks shared by the graph tests."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hsoftmax.bundle import Precision
from hsoftmax.exporter.graphs import bind_weights, lower
from hsoftmax.exporter.graphs.cuda import cuda_graphs
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.exporter.storage.weights_file import write_weights
from hsoftmax.models import Model, Softmax, attributes, from_tensors, reference
from hsoftmax.runtime.cuda import SUFFIX, Steps, open_lowered_tasks
from hsoftmax.runtime.devices import CUDA, DENSE_TASKS, ON_CUDA
from hsoftmax.runtime.sessions import open_session

TOLERANCE = {"rtol": 2e-6, "atol": 1e-5}  # float32 graph against float64 reference

# Earlier versions cannot multiply zero rows; the service runs no graph with zero rows.
needs_empty = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32),
    reason="products of no rows need ONNX Runtime 1.32",
)


class TaskRunner:
    """Runs the tasks of one model over its weights file."""

    def __init__(self, model: Model, directory: Path, precision: Precision = "fp32") -> None:
        tensors = stored_tensors(model, precision)
        table = {t.name: t for t in write_weights(directory / "weights.bin", tensors)}
        self.sessions = {}
        for task, lowered in lower(model, tensors).items():
            path = directory / f"{task}.onnx"
            path.write_bytes(bind_weights(lowered.proto, lowered.views, table).SerializeToString())
            self.sessions[task] = _open(path)
        self.sizes = {p.stem: p.stat().st_size for p in directory.glob("*.onnx")}

    def __call__(self, task: str, **inputs):
        return self.sessions[task].run(None, inputs)

    def top_k(self, hidden, k: int, max_blocks: int = 0):
        return self("top_k", hidden=hidden, k=np.array([k]), max_blocks=np.array([max_blocks]))


class CudaTaskRunner(TaskRunner):
    """Runs the graphs for CUDA of one model, with room for a few blocks in each run.

    They run on the CPU, and with HSOFTMAX_DEVICE=cuda (`make test-gpu`) on CUDA.
    """

    def __init__(
        self, model: Model, directory: Path, max_bytes: int = 20_000, precision: Precision = "fp32"
    ) -> None:
        tensors = stored_tensors(model, precision)
        graphs = cuda_graphs(model)
        sessions = {}
        for file, proto in graphs.files.items():
            path = directory / file
            path.write_bytes(proto.SerializeToString())
            sessions[file.removesuffix(SUFFIX)] = _open_lowered(path)
        stored = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        steps = Steps(sessions, "cuda" if _uses_cuda() else "cpu", max_bytes)
        self.model = from_tensors(type(model).__name__, tensors, attributes(model))  # as stored
        self.tasks = open_lowered_tasks(self.model, stored, steps)
        assert self.tasks.keys() == graphs.tasks.keys()

    def __call__(self, task: str, **inputs):
        return self.tasks[task](inputs)


def _open(path: Path) -> onnxruntime.InferenceSession:
    """Open a session; with HSOFTMAX_DEVICE=cuda (`make test-gpu`) dense tasks run on CUDA."""
    return _open_on_cuda(path) if _uses_cuda() and path.stem in DENSE_TASKS else open_session(path)


def _open_lowered(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph for CUDA."""
    return _open_on_cuda(path) if _uses_cuda() else open_session(path)


def _uses_cuda() -> bool:
    return os.environ.get("HSOFTMAX_DEVICE") == "cuda"


def _open_on_cuda(path: Path) -> onnxruntime.InferenceSession:
    """Open a session with the options of the service."""
    onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.enable_mem_reuse = False
    session = onnxruntime.InferenceSession(path, options, providers=list(ON_CUDA.providers))
    assert session.get_providers()[0] == CUDA
    return session


def assert_every_target(model: Softmax, run: TaskRunner, hidden, scale: float = 1.0) -> None:
    """Assert that log_probs and target_log_prob equal the reference for every target."""
    full = reference(model).log_probs(model, hidden)
    tolerance = TOLERANCE | {"atol": TOLERANCE["atol"] * scale}
    np.testing.assert_allclose(run("log_probs", hidden=hidden)[0], full, **tolerance)
    row, target = np.divmod(np.arange(full.size)[::-1], model.num_targets)
    alone = run("target_log_prob", hidden=hidden, row=row, target=target)[0]
    np.testing.assert_allclose(alone, full[row, target], **tolerance)
