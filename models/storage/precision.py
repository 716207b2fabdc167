"""In how many bits a level's weight lies in a bundle, and what it stands for.

    fp32   weight float32
    fp16   weight float16
    bf16   weight bfloat16, whose bits NumPy reads as uint16: the upper half of a float32
    int8   weight int8, scale [rows] float32: row r stands for scale[r] * weight[r]

Beside an int8 weight lies zero [rows] int32, which is of use to graphs alone.
"""

import numpy as np

from hsoftmax.models.arrays import Array, Float32

BESIDE = (".scale", ".zero")  # what a level has in a bundle that its model has not


def as_float32(rows: Array, scale: Array | None) -> Float32:
    """[..., hidden_size] in C order; what is that already is not copied. scale is that of int8."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32, order="C") << 16).view(np.float32)
    floats = rows.astype(np.float32, order="C", copy=False)
    if scale is not None:
        floats *= scale.reshape(*rows.shape[:-1], 1)
    return floats
