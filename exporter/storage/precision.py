"""Converts weights to the precision in which a bundle stores them.

    fp32, fp16   unchanged, or rounded to half precision
    bf16         rounded to the upper half of a float32, ties to even
    int8         scale[r] = max |weight[r]| / 127        stored[r] = round(weight[r] / scale[r])
                 zero[r] = 64 * sum of stored[r]         corrects for zero point 64 of hidden

Biases stay float32: they are few, and -inf has no integer. At fp16 and bf16 a level with few rows,
the top level of most models, stays float32 as well: it is about a hundredth of the bytes, and its
conversion would take time in every query. At int8 such a level is faster as integers. Of an
adaptive softmax, only bf16 converts anything: the weights of head and tails, not the projections.
"""

from collections.abc import Mapping
from typing import get_args

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.errors import ExportError
from hsoftmax.exporter.graphs.hidden_states import ZERO_POINT
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.storage.tensors import level_names

INT8_MAX = 127  # int8 weights use the symmetric range -127..127
_SUPPORTED_PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "HierarchicalSoftmax": get_args(bundle.Precision),
    "AdaptiveSoftmax": ("fp32", "bf16"),
}
_MAX_FLOAT16 = float(np.finfo(np.float16).max)
_MAX_BFLOAT16 = float.fromhex("0x1.fep+127")
_INFINITE_BFLOAT16 = 0x7F80
_MIN_SCALE = float(np.finfo(np.float32).tiny)
_MIN_LEVEL_SHARE = 64  # a level with fewer than 1 / 64 of all rows stays float32 at fp16, bf16
_MAX_ROWS_PER_CHUNK = 65_536


def expect_supported_precision(model: models.Model, precision: bundle.Precision) -> None:
    """Raise ExportError unless the model's family supports the precision."""
    family = models.family(model)
    supported = _SUPPORTED_PRECISIONS.get(family, ("fp32",))
    if precision not in supported:
        raise ExportError(
            f"precision of {family}: expected {' or '.join(supported)}, got {precision}"
        )


def convert_precision(
    tensors: Mapping[str, Array], precision: bundle.Precision
) -> dict[str, Array]:
    """Return the tensors with each weight [rows, width] of a level or layer in this precision.

    Raises:
        ExportError: a weight beyond the range of float16 or bfloat16.
    """
    match precision:
        case "fp32":
            return dict(tensors)
        case "fp16" | "bf16":
            return {**tensors, **_to_half_weights(tensors, precision)}
        case "int8":
            return {**tensors, **_to_int8_levels(tensors)}


def _to_half_weights(tensors: Mapping[str, Array], precision: bundle.Precision) -> dict[str, Array]:
    convert = _to_float16 if precision == "fp16" else _to_bfloat16
    weights = {name: array for name, array in tensors.items() if name.endswith(".weight")}
    rows = sum(map(len, weights.values()))
    return {
        name: convert(name, weight)
        for name, weight in weights.items()
        if len(weight) * _MIN_LEVEL_SHARE > rows
    }


def _to_int8_levels(tensors: Mapping[str, Array]) -> dict[str, Array]:
    stored: dict[str, Array] = {}
    for level in level_names(tensors):
        rows, stored[f"{level}.scale"] = _to_int8(tensors[f"{level}.weight"])
        stored[f"{level}.zero"] = ZERO_POINT * rows.sum(axis=1, dtype=np.int32)
        stored[f"{level}.weight"] = rows
    return stored


def _to_float16(name: str, weight: Array) -> Array:
    largest = max(float(weight.max()), -float(weight.min()))
    if largest > _MAX_FLOAT16:
        raise ExportError(
            f"{name}: expected at most {_MAX_FLOAT16:.0f} for precision fp16, got {largest:.6g}"
        )
    return weight.astype(np.float16)


def _to_bfloat16(name: str, weight: Array) -> Array:
    """Return the bits of bfloat16 as uint16, without a copy of all rows in another type."""
    stored = np.empty(weight.shape, np.uint16)
    for start in range(0, len(weight), _MAX_ROWS_PER_CHUNK):
        bits = weight[start : start + _MAX_ROWS_PER_CHUNK].view(np.uint32)
        is_odd = (bits >> 16) & 1  # a tie goes to the even number
        stored[start : start + _MAX_ROWS_PER_CHUNK] = (bits + 0x7FFF + is_odd) >> 16
    if stored.size and int((stored & 0x7FFF).max()) >= _INFINITE_BFLOAT16:
        largest = float(np.abs(weight).max())
        raise ExportError(
            f"{name}: expected at most {_MAX_BFLOAT16:.6g} for precision bf16, got {largest:.6g}"
        )
    return stored


def _to_int8(weight: Array) -> tuple[Array, Float32]:
    """Return int8 [rows, hidden_size] and scale [rows], without a float32 copy of all rows."""
    rows, scale = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for start in range(0, len(weight), _MAX_ROWS_PER_CHUNK):
        chunk = slice(start, start + _MAX_ROWS_PER_CHUNK)
        peak = np.abs(weight[chunk]).max(axis=1)
        scale[chunk] = np.maximum(peak / np.float32(INT8_MAX), _MIN_SCALE)
        rows[chunk] = np.rint(weight[chunk] / scale[chunk, None])
    return rows, scale
