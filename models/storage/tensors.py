"""A model's tensors, read back from those that its bundle stores.

A bundle may store a level's weight in fewer bits, see `precision`, and block by block, see
`layout`. The exporter's `stored` writes what this reads.
"""

from collections.abc import Iterable, Mapping

from hsoftmax.models.arrays import Array, Float32

from .layout import row_by_row
from .precision import BESIDE, as_float32


def model_tensors(stored: Mapping[str, Array]) -> dict[str, Array]:
    """The same with every level's weight as float32 [rows, hidden_size]; nothing else is copied.

    Raises:
        KeyError: a level without a weight.
    """
    tensors = {name: array for name, array in stored.items() if not name.endswith(BESIDE)}
    return tensors | {f"{level}.weight": _weight(stored, level) for level in level_names(stored)}


def level_names(tensors: Iterable[str]) -> list[str]:
    """Which levels these are the tensors of, as in `level0.weight`; none of a model without."""
    return [name.removesuffix(".offsets") for name in tensors if name.endswith(".offsets")]


def _weight(stored: Mapping[str, Array], level: str) -> Float32:
    rows = row_by_row(stored[f"{level}.weight"])
    return as_float32(rows, stored.get(f"{level}.scale")).reshape(-1, rows.shape[-1])
