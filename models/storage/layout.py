"""In which order the numbers of a level's weight lie in a bundle.

    [rows, hidden_size]                  row by row
    [blocks, hidden_size, block_size]    block by block, each transposed

A bundle's exporter says which levels lie how, see its `layout`.
"""

from hsoftmax.models.arrays import Array

_TRANSPOSED = 3  # axes


def row_by_row(weight: Array) -> Array:
    """A view with the hidden axis last: [rows, ...], or [blocks, block_size, ...] of transposed."""
    return weight.transpose(0, 2, 1) if weight.ndim == _TRANSPOSED else weight
