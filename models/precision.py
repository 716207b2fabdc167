"""Weights stored in fewer bits, read back as the float32 that they stand for.

    fp16   weight float16
    int8   weight int8, scale [rows] float32: row r stands for scale[r] * weight[r]

An int8 weight is [rows, hidden_size], or [blocks, hidden_size, block_size] where the blocks of a
level are alike: each block transposed, which is how an integer product takes its right operand.
Beside it lies zero [rows] int32, which is of use to graphs alone.
"""

from collections.abc import Mapping

import numpy as np

from .arrays import Array, Float32

_BESIDE = (".scale", ".zero")


def dequantise(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same tensors with every stored weight as float32; what is float32 is not copied."""
    return {
        name: _dequantised(array, tensors.get(f"{name.removesuffix('.weight')}.scale"))
        for name, array in tensors.items()
        if not name.endswith(_BESIDE)
    }


def _dequantised(array: Array, scale: Array | None) -> Array:
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array if array.dtype != np.int8 or scale is None else _scaled(array, scale)


def _scaled(weight: Array, scale: Array) -> Float32:
    by_row = weight if weight.ndim == 2 else weight.transpose(0, 2, 1)
    rows = by_row.astype(np.float32, order="C").reshape(len(scale), -1)
    rows *= scale[:, None]
    return rows
