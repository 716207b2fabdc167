"""Chooses the memory layout of each level's weight.

Blocks of equal size are stored transposed, [blocks, hidden_size, block_size]: the product of one
hidden row with such a block reads memory from front to back, at full speed.
"""

from collections.abc import Mapping

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.storage.tensors import level_names

_MAX_TRANSPOSED_FLOAT_ROWS = 8192  # float32 logits of as many rows fit in the L1 cache


def transpose_equal_blocks(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors with the weights of equal blocks as transposed views.

    Levels with unequal blocks, and float levels with very wide blocks, stay [rows, hidden_size].
    """
    result = dict(tensors)
    for level in level_names(tensors):
        name, sizes = f"{level}.weight", np.diff(tensors[f"{level}.offsets"])
        weight, size = tensors[name], int(sizes[0])
        if (sizes == size).all() and (
            weight.dtype == np.int8 or size <= _MAX_TRANSPOSED_FLOAT_ROWS
        ):
            result[name] = weight.reshape(len(sizes), size, -1).transpose(0, 2, 1)
    return result
