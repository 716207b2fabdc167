"""The native kernel target_log_prob of a hierarchical softmax with inner nodes.

The path of an inner node ends above the last level. It is the path of a target in the softmax that
has only the levels above, whose tensors are the first ones of the bundle, so that a path of either
kind is computed by the same code and has the same bits in any batch.
"""

from collections.abc import Mapping

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.hierarchical_softmax import INNER_LEVELS, INNER_ROWS
from hsoftmax.models.storage.tensors import level_names

from .kernel import FreeThreads, StopFlag
from .levels import levels_model
from .library import NativeError, NativeLibrary, expect_tensor
from .task_kernels import TargetLogProbKernel

_WHOLE_TREE = -1  # the level of a node of probability 1


class InnerNodesKernel:
    """The task target_log_prob on the tensors of a bundle, whose inner nodes follow the targets."""

    def __init__(
        self,
        library: NativeLibrary,
        tensors: Mapping[str, Array],
        num_targets: int,
        threads: FreeThreads | None = None,
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._num_targets = num_targets
        self._of_targets = _kernel(library, tensors, num_targets, threads)
        self._level = tensors[INNER_LEVELS]
        self._row = _rows_at_levels(tensors, self._level)
        self._of_level = {
            level: _truncated(library, tensors, level, threads)
            for level in sorted(set(self._level.tolist()) - {_WHOLE_TREE})
        }

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        target = feeds["target"]
        node = target - self._num_targets
        if not len(target) or node.max() < 0:
            return self._of_targets(feeds, stop)
        if node.max() >= len(self._level):
            numbers = self._num_targets + len(self._level)
            raise NativeError(f"target: expected 0 to {numbers - 1}, got {target.max()}")
        log_prob = np.zeros(len(target), dtype=np.float32)
        level = np.where(node < 0, np.iinfo(np.int64).max, self._level[np.maximum(node, 0)])
        _fill(log_prob, node < 0, self._of_targets, feeds, target, stop)
        for one, kernel in self._of_level.items():
            rows = self._row[np.maximum(node, 0)]
            _fill(log_prob, level == one, kernel, feeds, rows, stop)
        return [log_prob]


def _fill(
    log_prob: Float32,
    is_meant: Array,
    kernel: TargetLogProbKernel,
    feeds: Mapping[str, Array],
    target: Int64,
    stop: StopFlag | None,
) -> None:
    """Write the log-probabilities of the pairs that are meant."""
    if is_meant.any():
        pairs = {"row": feeds["row"][is_meant], "target": target[is_meant]}
        log_prob[is_meant] = kernel({"hidden": feeds["hidden"], **pairs}, stop)[0]


def _truncated(
    library: NativeLibrary, tensors: Mapping[str, Array], last: int, threads: FreeThreads | None
) -> TargetLogProbKernel:
    """Return the kernel of the levels up to `last`, whose targets are the rows of that level."""
    names = tuple(f"{name}." for name in level_names(tensors)[: last + 1])
    kept = {name: array for name, array in tensors.items() if name.startswith(names)}
    rows = len(tensors[f"{names[-1]}bias"])
    return _kernel(library, kept, rows, threads)


def _kernel(
    library: NativeLibrary,
    tensors: Mapping[str, Array],
    num_targets: int,
    threads: FreeThreads | None,
) -> TargetLogProbKernel:
    return TargetLogProbKernel(library, levels_model(library, tensors, num_targets), threads)


def _rows_at_levels(tensors: Mapping[str, Array], level: Int64) -> Int64:
    """Return the row of each inner node at its own level. Raises NativeError for a wrong one."""
    names = level_names(tensors)
    rows = tensors[INNER_ROWS].copy()
    expect_tensor(INNER_ROWS, rows, np.int64, level.shape)
    if level.min() < _WHOLE_TREE or level.max() >= len(names):
        raise NativeError(f"{INNER_LEVELS}: expected -1 to {len(names) - 1}, got others")
    for i in range(len(names) - 1, 0, -1):
        offsets, is_below = tensors[f"{names[i]}.offsets"], level < i
        rows[is_below] = np.searchsorted(offsets, rows[is_below], side="right") - 1
    return rows
