"""In how many bits a level's weight is stored.

    fp32, fp16   as they are, or rounded to half
    int8         scale[r] = max |weight[r]| / 127        stored[r] = round(weight[r] / scale[r])
                 zero[r] = 64 * sum of stored[r]         what digits add by standing for 0 as 64

Biases stay float32: they are few, and -inf has no integer. At fp16 so does a level of few rows, the
top one of most models: it is a hundredth of the bytes, and to convert it takes time. At int8 it is
faster as integers.
"""

from collections.abc import Mapping
from typing import get_args

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.errors import ExportError
from hsoftmax.exporter.graphs.hidden_states import ZERO
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.storage.tensors import level_names

STEPS = 127  # an int8 weight lies in -127..127, alike on both sides of zero
_OFFERED = {"HierarchicalSoftmax": get_args(bundle.Precision)}
_LARGEST_HALF = float(np.finfo(np.float16).max)
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_SMALL = 64  # a level of one row in so many keeps its float32
_ROWS_AT_ONCE = 65_536


def expect_offered(model: models.Model, precision: bundle.Precision) -> None:
    """Raise ExportError unless the model's family can be stored so."""
    family = models.family(model)
    offered = _OFFERED.get(family, ("fp32",))
    if precision not in offered:
        raise ExportError(
            f"precision of {family}: expected {' or '.join(offered)}, got {precision}"
        )


def in_precision(tensors: Mapping[str, Array], precision: bundle.Precision) -> dict[str, Array]:
    """The same with every level's weight [rows, hidden_size] in so many bits.

    Raises:
        ExportError: a weight beyond what float16 holds.
    """
    match precision:
        case "fp32":
            return dict(tensors)
        case "fp16":
            return {**tensors, **_halves(tensors)}
        case "int8":
            return {**tensors, **_integers(tensors)}


def _halves(tensors: Mapping[str, Array]) -> dict[str, Array]:
    weights = {f"{level}.weight": tensors[f"{level}.weight"] for level in level_names(tensors)}
    rows = sum(map(len, weights.values()))
    return {name: _half(name, w) for name, w in weights.items() if len(w) * _SMALL > rows}


def _integers(tensors: Mapping[str, Array]) -> dict[str, Array]:
    stored: dict[str, Array] = {}
    for level in level_names(tensors):
        rows, stored[f"{level}.scale"] = _rounded(tensors[f"{level}.weight"])
        stored[f"{level}.zero"] = ZERO * rows.sum(axis=1, dtype=np.int32)
        stored[f"{level}.weight"] = rows
    return stored


def _half(name: str, weight: Array) -> Array:
    largest = max(float(weight.max()), -float(weight.min()))
    if largest > _LARGEST_HALF:
        raise ExportError(
            f"{name}: expected at most {_LARGEST_HALF:.0f} for precision fp16, got {largest:.6g}"
        )
    return weight.astype(np.float16)


def _rounded(weight: Array) -> tuple[Array, Float32]:
    """(int8 [rows, hidden_size], scale [rows]), without a second float32 copy of the whole."""
    rows, scale = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for start in range(0, len(weight), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        peak = np.abs(weight[some]).max(axis=1)
        scale[some] = np.maximum(peak / np.float32(STEPS), _SMALLEST_SCALE)
        rows[some] = np.rint(weight[some] / scale[some, None])
    return rows, scale
