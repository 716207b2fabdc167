"""Softmaxes lowered into running sessions, one for each task."""

from pathlib import Path

import numpy as np

from bundle import Precision
from exporter.graphs import bind, graph_tensors, lower
from exporter.precision import quantise
from exporter.verification import open_session
from exporter.weights_file import write_weights
from models import Model, to_tensors


class Running:
    """The tasks of one model, run by ONNX Runtime over a weights file."""

    def __init__(self, model: Model, directory: Path, precision: Precision = "fp32") -> None:
        tensors = quantise({**to_tensors(model), **graph_tensors(model)}, precision)
        table = {t.name: t for t in write_weights(directory / "weights.bin", tensors)}
        self.sessions = {}
        for task, lowered in lower(model, tensors).items():
            path = directory / f"{task}.onnx"
            path.write_bytes(bind(lowered.proto, lowered.views, table).SerializeToString())
            self.sessions[task] = open_session(path)
        self.sizes = {p.stem: p.stat().st_size for p in directory.glob("*.onnx")}

    def __call__(self, task: str, **inputs):
        return self.sessions[task].run(None, inputs)

    def top_k(self, hidden, k: int, max_blocks: int = 0):
        return self("top_k", hidden=hidden, k=np.array([k]), max_blocks=np.array([max_blocks]))
