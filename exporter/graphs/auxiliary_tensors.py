"""Tensors that graphs read besides the model's own; small next to the weights.

level{i}.block_of_row [rows] int32: where blocks differ in size, no division finds a row's block.
level{i}.alive [rows] float32: 0 for a row with a target below it, else -inf. Only where padding
    rows keep probability (padding="theano"), to be left out of top-k answers and of samples.
row_target [rows] int64: the target that each row of the last level is, for top-k; without
    `target_rows` it is the row itself.
row_order [rows] int32: the rows of each block by ascending target, where they are not so already.

Those of a HuffmanSoftmax are told in `binary_tree`.
"""

import numpy as np

from hsoftmax.models import HierarchicalSoftmax, HuffmanSoftmax, Model
from hsoftmax.models.arrays import Array, Float32

from .binary_tree import tree_tensors


def graph_tensors(model: Model) -> dict[str, Array]:
    """The extra tensors of this model's graphs, by name."""
    if isinstance(model, HuffmanSoftmax):
        return tree_tensors(model)
    return _level_tensors(model) if isinstance(model, HierarchicalSoftmax) else {}


def _level_tensors(model: HierarchicalSoftmax) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for i, level in enumerate(model.levels):
        if level.block_size is None:
            tensors[f"level{i}.block_of_row"] = level.block_of_row.astype(np.int32)
    if model.padding == "theano" and model.num_targets < model.levels[-1].num_rows:
        tensors |= {f"level{i}.alive": alive for i, alive in enumerate(_alive(model))}
    if model.target_rows is not None:
        tensors["row_target"] = model.row_targets
        order = np.lexsort((model.row_targets, model.levels[-1].block_of_row))
        if (np.diff(order) != 1).any():
            tensors["row_order"] = order.astype(np.int32)
    return tensors


def _alive(model: HierarchicalSoftmax) -> list[Float32]:
    alive = model.row_targets < model.num_targets
    masks: list[Float32] = []
    for level in reversed(model.levels):
        masks.insert(0, np.where(alive, np.float32(0), np.float32(-np.inf)))
        alive = np.logical_or.reduceat(alive, level.offsets[:-1])
    return masks
