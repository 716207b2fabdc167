"""Weights as a bundle stores them, read back as the float32 rows that they stand for.

    fp32   weight float32
    fp16   weight float16
    int8   weight int8, scale [rows] float32: row r stands for scale[r] * weight[r]

A weight is [rows, hidden_size], or [blocks, hidden_size, block_size]: each block transposed.
Beside an int8 weight lies zero [rows] int32, which is of use to graphs alone.
"""

from collections.abc import Mapping

import numpy as np

from .arrays import Array, Float32

_BESIDE = (".scale", ".zero")
_FLOATS = (np.float32, np.float16)
_TRANSPOSED = 3  # axes


def dequantise(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same tensors with every stored weight as float32 rows; what is that is not copied."""
    return {
        name: _dequantised(array, tensors.get(f"{name.removesuffix('.weight')}.scale"))
        for name, array in tensors.items()
        if not name.endswith(_BESIDE)
    }


def _dequantised(array: Array, scale: Array | None) -> Array:
    if array.dtype == np.int8 and scale is not None:
        return _scaled(_in_rows(array), scale)
    return _in_rows(array) if array.dtype in _FLOATS else array


def _in_rows(weight: Array) -> Float32:
    """[rows, ...] float32, of transposed blocks too."""
    if weight.ndim != _TRANSPOSED:
        return weight.astype(np.float32, copy=False)
    rows = weight.transpose(0, 2, 1).astype(np.float32, order="C")
    return rows.reshape(-1, weight.shape[1])


def _scaled(rows: Float32, scale: Array) -> Float32:
    rows *= scale[:, None]
    return rows
