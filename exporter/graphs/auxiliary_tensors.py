"""Tensors that the graphs need besides the model's own; they are small next to the weights.

level{i}.block_of_row [rows] int32: the block of each row, if the blocks differ in size.
level{i}.wide_blocks [n] int64: the blocks of several rows, if others of the level have one row.
level{i}.alive [rows] float32: 0 for a row with a target below it, else -inf. It exists only if
    padding rows keep probability (padding="theano"), and excludes them from top-k and samples.
row_target [rows] int64: the target of each row of the last level, for top-k; without
    `target_rows` the target is the row itself.
row_order [rows] int32: the rows of each block by ascending target, if they differ from row order.

`binary_tree` describes the tensors of a HuffmanSoftmax.
"""

import numpy as np

from hsoftmax.models import HierarchicalSoftmax, HuffmanSoftmax, Model
from hsoftmax.models.arrays import Array, Float32

from .binary_tree import tree_tensors


def graph_tensors(model: Model) -> dict[str, Array]:
    """Return the extra tensors of this model's graphs by name."""
    if isinstance(model, HuffmanSoftmax):
        return tree_tensors(model)
    return _level_tensors(model) if isinstance(model, HierarchicalSoftmax) else {}


def _level_tensors(model: HierarchicalSoftmax) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for i, level in enumerate(model.levels):
        if level.block_size is None:
            tensors[f"level{i}.block_of_row"] = level.block_of_row.astype(np.int32)
            if (level.block_sizes == 1).any():
                tensors[f"level{i}.wide_blocks"] = np.flatnonzero(level.block_sizes > 1)
    if model.padding == "theano" and model.num_targets < model.levels[-1].num_rows:
        tensors |= {f"level{i}.alive": alive for i, alive in enumerate(_alive(model))}
    if model.target_rows is not None:
        tensors["row_target"] = model.row_targets
        order = np.lexsort((model.row_targets, model.levels[-1].block_of_row))
        if (np.diff(order) != 1).any():
            tensors["row_order"] = order.astype(np.int32)
    return tensors


def _alive(model: HierarchicalSoftmax) -> list[Float32]:
    has_target = model.row_targets < model.num_targets
    masks: list[Float32] = []
    for level in reversed(model.levels):
        masks.insert(0, np.where(has_target, np.float32(0), np.float32(-np.inf)))
        has_target = np.logical_or.reduceat(has_target, level.offsets[:-1])
    return masks
