"""In which order the numbers of a level's weight are stored.

Blocks that are alike are stored transposed, [blocks, hidden_size, block_size]: the product of one
hidden row with such a block runs through memory from front to back, as fast as it can be read.
"""

from collections.abc import Mapping

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.storage.tensors import level_names

_WIDEST = 8192  # rows of a transposed block whose float32 logits stay in the first cache


def block_by_block(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same with the weights [rows, hidden_size] of blocks that are alike as transposed views.

    Other levels, and those of too wide blocks of floats, stay row by row.
    """
    laid_out = dict(tensors)
    for level in level_names(tensors):
        name, sizes = f"{level}.weight", np.diff(tensors[f"{level}.offsets"])
        weight, size = tensors[name], int(sizes[0])
        if (sizes == size).all() and (weight.dtype == np.int8 or size <= _WIDEST):
            laid_out[name] = weight.reshape(len(sizes), size, -1).transpose(0, 2, 1)
    return laid_out
