"""Converts weights to the precision in which a bundle stores them.

    fp32, fp16   unchanged, or rounded to half precision
    bf16         rounded to the upper half of a float32, ties to even
    int8         scale[r] = max |weight[r]| / 127        stored[r] = round(weight[r] / scale[r])
                 zero[r] = 64 * sum of stored[r]         corrects for zero point 64 of hidden

`zero` exists for levels alone, because only their graphs round hidden rows. Biases stay float32:
they are few, and -inf has no integer. So do the projections of an adaptive softmax, whose error
would be multiplied by the weights. A level or layer with few rows, the top level of most models,
stays float32 as well, unless it is an int8 level: it is about a hundredth of the bytes, and its
conversion would take time in every query. An int8 level is multiplied without one.
"""

from collections.abc import Mapping

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.errors import ExportError
from hsoftmax.exporter.graphs.hidden_states import ZERO_POINT
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.storage.precision import scale_name
from hsoftmax.models.storage.tensors import level_names

INT8_MAX = 127  # int8 weights use the symmetric range -127..127
_MAX_FLOAT16 = float(np.finfo(np.float16).max)
_MAX_BFLOAT16 = float.fromhex("0x1.fep+127")
_INFINITE_BFLOAT16 = 0x7F80
_MIN_SCALE = float(np.finfo(np.float32).tiny)
_MIN_LEVEL_SHARE = 64  # a level with fewer than 1 / 64 of all rows stays float32 at fp16, bf16
_MAX_ROWS_PER_CHUNK = 65_536


def expect_supported_precision(model: models.Model, precision: bundle.Precision) -> None:
    """Raise ExportError for a layer without a softmax, which is stored in fp32 alone."""
    if isinstance(model, models.SparseBlockDot) and precision != "fp32":
        raise ExportError(f"precision of {models.family(model)}: expected fp32, got {precision}")


def convert_precision(
    tensors: Mapping[str, Array], precision: bundle.Precision
) -> dict[str, Array]:
    """Return the tensors with each weight of a level, a layer or a tree in this precision.

    Raises:
        ExportError: a weight beyond the range of float16 or bfloat16.
    """
    match precision:
        case "fp32":
            return dict(tensors)
        case "fp16" | "bf16":
            convert = _to_float16 if precision == "fp16" else _to_bfloat16
            return {**tensors, **{n: convert(n, w) for n, w in _large_weights(tensors).items()}}
        case "int8":
            return {**tensors, **_to_int8_weights(tensors)}


def _weights(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return the weights [rows, width] of levels, of layers, or of the nodes of a tree."""
    return {n: array for n, array in tensors.items() if n.endswith(".weight") or n == "syn1"}


def _large_weights(tensors: Mapping[str, Array]) -> dict[str, Array]:
    weights = _weights(tensors)
    rows = sum(map(len, weights.values()))
    return {n: weight for n, weight in weights.items() if len(weight) * _MIN_LEVEL_SHARE > rows}


def _to_int8_weights(tensors: Mapping[str, Array]) -> dict[str, Array]:
    stored: dict[str, Array] = {}
    levels = level_names(tensors)
    for name, weight in (_weights(tensors) if levels else _large_weights(tensors)).items():
        stored[name], stored[scale_name(name)] = _to_int8(weight)
    for level in levels:
        rows = stored[f"{level}.weight"]
        stored[f"{level}.zero"] = ZERO_POINT * rows.sum(axis=1, dtype=np.int32)
    return stored


def _to_float16(name: str, weight: Array) -> Array:
    largest = float(np.abs(weight).max(initial=0))
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
        peak = np.abs(weight[chunk]).max(axis=1, initial=0)
        scale[chunk] = np.maximum(peak / np.float32(INT8_MAX), _MIN_SCALE)
        rows[chunk] = np.rint(weight[chunk] / scale[chunk, None])
    return rows, scale
