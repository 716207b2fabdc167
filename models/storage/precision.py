"""Precisions of a weight in a bundle, and conversion back to float32.

    fp32   weight float32
    fp16   weight float16
    bf16   weight bfloat16, whose bits NumPy reads as uint16: the upper half of a float32
    int8   weight int8, scale [rows] float32: row r represents scale[r] * weight[r]

The scale of `level0.weight` is `level0.scale`, that of `syn1` is `syn1.scale`. An int8 level also
has zero [rows] int32, which only the graphs use.
"""

import numpy as np

from hsoftmax.models.arrays import Array, Float32

QUANTISATION_SUFFIXES = (".scale", ".zero")  # of tensors that are in a bundle but not in the model


def scale_name(weight: str) -> str:
    """Return the name of the scale of an int8 weight."""
    return f"{weight.removesuffix('.weight')}.scale"


def dequantise(rows: Array, scale: Array | None) -> Float32:
    """Return the rows [..., hidden_size] as C-order float32; rows of that form are not copied.

    `scale` is the scale tensor of an int8 weight, else None.
    """
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32, order="C") << 16).view(np.float32)
    floats = rows.astype(np.float32, order="C", copy=False)
    if scale is not None:
        floats *= scale.reshape(*rows.shape[:-1], 1)
    return floats
