"""The tasks of a bundle on CUDA, from graphs that the host plans for. docs/decisions/0041 says why.

`open_lowered_tasks` copies the weights to the device once, as float32, and returns a function for
each task that the bundle has a graph for. It takes the inputs of the task and returns its outputs,
as the portable graph does.

The package needs NumPy and ONNX Runtime alone, so that `make gpu-check` can carry it to a machine
without the others.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax import models
from hsoftmax.models.arrays import Array

from .adaptive import put_adaptive
from .block_dot import put_block_dot
from .levels import put_levels
from .levels_top_k import LevelsTopK
from .steps import DeviceType, Steps, StoppedRun, StopRequest
from .top_k_rounds import TargetOrder
from .tree import put_tree

__all__ = [
    "MAX_BYTES",
    "SUFFIX",
    "DeviceType",
    "LoweredTask",
    "Steps",
    "StoppedRun",
    "lowered_files",
    "open_lowered_tasks",
]

SUFFIX = ".cuda.onnx"
MAX_BYTES = 1 << 30  # of the temporary arrays of one run

_Task = Callable[[Mapping[str, Array]], list[Array]]


@dataclass(frozen=True)
class LoweredTask:
    """Computes one task on the device. Several threads may call it; they take turns."""

    steps: Steps
    compute: _Task

    def __call__(self, feeds: Mapping[str, Array], stop: StopRequest | None = None) -> list[Array]:
        """Compute the task. Raises StoppedRun soon after `stop` is set."""
        with self.steps.lock:
            self.steps.stop = stop
            return self.compute(feeds)


def lowered_files(names: Iterable[str]) -> list[str]:
    """Return a bundle's graphs for CUDA: those of tasks, and those that they share."""
    return sorted(name for name in names if name.endswith(SUFFIX))


def open_lowered_tasks(
    model: models.Model, tensors: Mapping[str, Array], steps: Steps
) -> dict[str, LoweredTask]:
    """Copy the weights of a model to the device and return its tasks there.

    `tensors` are those of the bundle, of which some are not part of the model.
    """
    tasks = _tasks(model, tensors, steps)
    return {task: LoweredTask(steps, compute) for task, compute in tasks.items()}


def _tasks(model: models.Model, tensors: Mapping[str, Array], steps: Steps) -> dict[str, _Task]:
    match model:
        case models.HierarchicalSoftmax():
            return _hierarchical_softmax(model, tensors, steps)
        case models.AdaptiveSoftmax():
            return _adaptive_softmax(model, steps)
        case models.HuffmanSoftmax():
            return _huffman_softmax(model, steps)
        case models.SparseBlockDot():
            return {"block_dot": put_block_dot(model, steps)}


def _hierarchical_softmax(
    model: models.HierarchicalSoftmax, tensors: Mapping[str, Array], steps: Steps
) -> dict[str, _Task]:
    masks = {i: tensors.get(f"level{i}.alive") for i in range(len(model.levels))}
    levels = put_levels(model, steps, {i: mask for i, mask in masks.items() if mask is not None})
    last = model.levels[-1]
    targets_in_block = np.bincount(last.block_of_row[model.rows], minlength=last.num_blocks)
    order = None
    if model.target_rows is not None:
        by_target = np.lexsort((model.row_targets, last.block_of_row))
        rank = by_target - last.offsets[last.block_of_row]
        order = TargetOrder(steps.put(model.row_targets), rank)
    return {
        "target_log_prob": levels.target_log_prob,
        "log_probs": levels.log_probs,
        "cluster_log_probs": levels.cluster_log_probs,
        "top_k": LevelsTopK(levels, order, targets_in_block),
        "sample": levels.sample,
    }


def _adaptive_softmax(model: models.AdaptiveSoftmax, steps: Steps) -> dict[str, _Task]:
    adaptive = put_adaptive(model, steps)
    return {
        "target_log_prob": adaptive.target_log_prob,
        "log_probs": adaptive.log_probs,
        "cluster_log_probs": adaptive.cluster_log_probs,
        "top_k": adaptive.top_k,
        "sample": adaptive.sample,
    }


def _huffman_softmax(model: models.HuffmanSoftmax, steps: Steps) -> dict[str, _Task]:
    tree = put_tree(model, steps)
    return {
        "target_log_prob": tree.target_log_prob,
        "log_probs": tree.log_probs,
        "sample": tree.sample,
    }
