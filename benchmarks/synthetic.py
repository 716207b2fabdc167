"""Builds two-level models of any size in seconds; `weights.bin` is one random chunk, repeated."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hsoftmax import bundle, models
from hsoftmax.exporter.graphs import LoweredGraph, bind_weights, lower
from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.exporter.storage.weights_file import write_weights
from hsoftmax.models import HierarchicalSoftmax, Level
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.runtime.devices import CPU
from hsoftmax.runtime.native import FreeThreads, Kernel, load_library, open_kernel

_CHUNK_FLOATS = 4 * 1024 * 1024


@dataclass(frozen=True)
class WrittenModel:
    """A model and its mapped `weights.bin`; its graphs are written to the same folder."""

    model: HierarchicalSoftmax
    directory: Path
    tensors: Mapping[str, Array]
    table: Mapping[str, bundle.StoredTensor]

    def block(self, number: int) -> Array:
        """Return a block of the last level as it is stored, mapped."""
        last = len(self.model.levels) - 1
        weight, offsets = self.tensors[f"level{last}.weight"], self.model.levels[last].offsets
        return weight[number] if weight.ndim == 3 else weight[offsets[number] : offsets[number + 1]]

    def session(
        self, task: str, threads: int = 1, providers: Sequence[Any] = (CPU,)
    ) -> onnxruntime.InferenceSession:
        """Open a session for one of the model's own tasks."""
        return self.open_graph(task, lower(self.model, self.tensors)[task], threads, providers)

    def kernel(self, task: str, threads: int = 1) -> Kernel | None:
        """Open the native kernel of a task; None if this machine has none."""
        library = load_library()
        if isinstance(library, str):
            return None
        family, attributes = models.family(self.model), models.attributes(self.model)
        return open_kernel(library, family, task, self.tensors, attributes, FreeThreads(threads))

    def open_graph(
        self, name: str, lowered: LoweredGraph, threads: int = 1, providers: Sequence[Any] = (CPU,)
    ) -> onnxruntime.InferenceSession:
        path = self.directory / f"{name}.onnx"
        path.write_bytes(bind_weights(lowered.proto, lowered.views, self.table).SerializeToString())
        return onnxruntime.InferenceSession(path, session_options(threads), providers=[*providers])


@contextmanager
def two_level(
    clusters: int,
    block: int,
    hidden: int,
    *,
    jitter: float = 0.0,
    seed: int = 0,
    precision: bundle.Precision = "fp32",
) -> Iterator[WrittenModel]:
    """Write a temporary model of `clusters` blocks of about `block` rows, varied by `jitter`."""
    model = _two_level_model(clusters, block, hidden, jitter, seed)
    with tempfile.TemporaryDirectory() as directory:
        yield write(model, Path(directory), precision)


@contextmanager
def two_level_in(
    precisions: Sequence[bundle.Precision],
    clusters: int,
    block: int,
    hidden: int,
    *,
    jitter: float = 0.0,
) -> Iterator[dict[bundle.Precision, WrittenModel]]:
    """Write the same model in several precisions. Its weights are in the files alone."""
    model = _two_level_model(clusters, block, hidden, jitter, seed=0)
    top, last = model.levels
    with tempfile.TemporaryDirectory() as directory:
        written = {}
        for precision in precisions:
            folder = Path(directory) / precision
            folder.mkdir()
            written[precision] = write(model, folder, precision)
        shape_alone = np.broadcast_to(np.float32(0), last.weight.shape)
        small = replace(model, levels=(top, replace(last, weight=shape_alone)))
        del model, last
        yield {name: replace(one, model=small) for name, one in written.items()}


def write(
    model: HierarchicalSoftmax, directory: Path, precision: bundle.Precision = "fp32"
) -> WrittenModel:
    """Write a model's tensors and map them."""
    tensors = stored_tensors(model, precision)
    table = {t.name: t for t in write_weights(directory / bundle.WEIGHTS, tensors)}
    mapped = np.memmap(directory / bundle.WEIGHTS, dtype=np.uint8, mode="r")
    views = {
        name: mapped[t.offset : t.offset + t.num_bytes].view(t.stored_dtype).reshape(t.shape)
        for name, t in table.items()
    }
    return WrittenModel(model, directory, views, table)


def session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _two_level_model(
    clusters: int, block: int, hidden: int, jitter: float, seed: int
) -> HierarchicalSoftmax:
    rng = np.random.default_rng(seed)
    sizes = np.rint(block * (1 + jitter * rng.uniform(-1, 1, clusters))).astype(np.int64)
    levels = (_level(rng, np.array([clusters]), hidden), _level(rng, sizes, hidden))
    return HierarchicalSoftmax(levels, num_targets=levels[-1].num_rows)


def _level(rng: np.random.Generator, sizes: Array, hidden: int) -> Level:
    rows = int(sizes.sum())
    bias = rng.standard_normal(rows, dtype=np.float32)
    return Level(_weight(rng, rows, hidden), bias, np.concatenate([[0], np.cumsum(sizes)]))


def _weight(rng: np.random.Generator, rows: int, hidden: int) -> Float32:
    chunk = rng.standard_normal(min(_CHUNK_FLOATS, rows * hidden), dtype=np.float32)
    chunk *= np.float32(4 / np.sqrt(hidden))
    return np.resize(chunk, (rows, hidden))
