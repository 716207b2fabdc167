"""Memory layouts of a level's weight in a bundle.

    [rows, hidden_size]                  one row after another
    [blocks, hidden_size, block_size]    one block after another, each transposed

`exporter.storage.layout` chooses the layout of each level.
"""

from hsoftmax.models.arrays import Array

_NUM_TRANSPOSED_AXES = 3


def to_row_major(weight: Array) -> Array:
    """Return a view [rows, hidden_size], or [blocks, block_size, hidden_size] if transposed."""
    return weight.transpose(0, 2, 1) if weight.ndim == _NUM_TRANSPOSED_AXES else weight
