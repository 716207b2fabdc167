"""Converts the tensors of a bundle into those of a model.

A bundle may store a weight in fewer bits (see `precision`), and that of a level in transposed
blocks (see `layout`). `exporter.storage.tensors` writes the tensors that this module reads.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from hsoftmax.models.arrays import Array, Float32

from .layout import to_row_major
from .precision import QUANTISATION_SUFFIXES, dequantise, scale_name


def model_tensors(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors with each weight as float32 rows.

    Other tensors, and weights of that form, are not copied.

    Raises:
        KeyError: a level without a weight.
    """
    tensors = {
        name: array for name, array in stored.items() if not name.endswith(QUANTISATION_SUFFIXES)
    }
    levels = {f"{level}.weight" for level in level_names(stored)}
    weights = levels | {name for name in tensors if _is_short(stored, name)}
    return tensors | {name: _rows(stored, name) for name in weights}


def _is_short(stored: Mapping[str, Array], name: str) -> bool:
    """Return True for a weight in fewer bits than float32."""
    return stored[name].dtype in (np.uint16, np.float16) or scale_name(name) in stored


def level_names(tensors: Iterable[str]) -> list[str]:
    """Return the names of the levels among the tensors, such as `level0`; empty without levels."""
    return [name.removesuffix(".offsets") for name in tensors if name.endswith(".offsets")]


def _rows(stored: Mapping[str, Array], name: str) -> Float32:
    rows = dequantise(to_row_major(stored[name]), stored.get(scale_name(name)))
    return rows.reshape(-1, rows.shape[-1]) if rows.ndim == 3 else rows  # of transposed blocks
