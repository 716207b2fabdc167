"""Converts the tensors of a bundle into those of a model.

A bundle may store a level's weight in fewer bits (see `precision`) and in transposed blocks (see
`layout`). `exporter.storage.tensors` writes the tensors that this module reads.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from hsoftmax.models.arrays import Array, Float32

from .layout import to_row_major
from .precision import QUANTISATION_SUFFIXES, dequantise


def model_tensors(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors with each level's weight as float32 [rows, hidden_size], and no bfloat16.

    Other tensors are not copied.

    Raises:
        KeyError: a level without a weight.
    """
    tensors = {
        name: array for name, array in stored.items() if not name.endswith(QUANTISATION_SUFFIXES)
    }
    levels = {f"{level}.weight": _weight(stored, level) for level in level_names(stored)}
    bits = {name: array for name, array in tensors.items() if array.dtype == np.uint16}
    floats = {name: dequantise(array, None) for name, array in bits.items() if name not in levels}
    return tensors | levels | floats


def level_names(tensors: Iterable[str]) -> list[str]:
    """Return the names of the levels among the tensors, such as `level0`; empty without levels."""
    return [name.removesuffix(".offsets") for name in tensors if name.endswith(".offsets")]


def _weight(stored: Mapping[str, Array], level: str) -> Float32:
    rows = to_row_major(stored[f"{level}.weight"])
    return dequantise(rows, stored.get(f"{level}.scale")).reshape(-1, rows.shape[-1])
