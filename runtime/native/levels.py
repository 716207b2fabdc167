"""Describes a hierarchical softmax to the library."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.storage.tensors import level_names

from .library import NativeError, NativeLibrary, expect_tensor
from .model import NativeModel, optional_pointer, weight_fields

_TRANSPOSED_AXES = 3  # of a weight [blocks, hidden_size, block_size]


def levels_model(
    library: NativeLibrary, tensors: Mapping[str, Array], num_targets: int
) -> NativeModel:
    """Describe the levels. Raises NativeError if their tensors do not fit each other."""
    hidden_size = tensors["level0.weight"].shape[1]
    levels = [_level(library, name, tensors, hidden_size) for name in level_names(tensors)]
    rows = [level["rows"] for level in levels]
    array = library.ffi.new("hsoftmax_level[]", levels)
    alive = _alive(library, tensors, rows)
    structure = library.ffi.new("hsoftmax_levels *", {
        "levels": array,
        "target_rows": optional_pointer(library, "target_rows", tensors, np.int64, num_targets),
        "row_target": optional_pointer(library, "row_target", tensors, np.int64, rows[-1]),
        "alive": alive,
        "num_levels": len(levels),
        "num_targets": num_targets,
        "hidden_size": hidden_size,
    })  # fmt: skip
    kept = (tensors, array, alive)
    return NativeModel("levels", structure, hidden_size, num_targets, len(levels), kept)


def _alive(library: NativeLibrary, tensors: Mapping[str, Array], rows: list[int]) -> Any:  # noqa: ANN401  cffi's type
    """Return the pointers to the rows that may be drawn on each level; null if all may.

    Raises NativeError for another type or shape.
    """
    if "level0.alive" not in tensors:
        return library.ffi.NULL
    masks = [tensors[f"level{i}.alive"] for i in range(len(rows))]
    for i, (mask, count) in enumerate(zip(masks, rows, strict=True)):
        expect_tensor(f"level{i}.alive", mask, np.float32, (count,))
    return library.ffi.new("float *[]", [library.pointer(mask) for mask in masks])


def _level(
    library: NativeLibrary, name: str, tensors: Mapping[str, Array], hidden_size: int
) -> dict[str, Any]:
    """Describe a level. Raises NativeError if its tensors do not fit each other."""
    bias, offsets = tensors[f"{name}.bias"], tensors[f"{name}.offsets"]
    weight = tensors[f"{name}.weight"]
    rows, blocks = len(bias), max(1, len(offsets) - 1)
    block_size = weight.shape[2] if weight.ndim == _TRANSPOSED_AXES else 0
    shape = (blocks, hidden_size, rows // blocks) if block_size else (rows, hidden_size)
    fields = weight_fields(library, f"{name}.weight", tensors, shape, rows)
    expect_tensor(f"{name}.bias", bias, np.float32, (rows,))
    expect_tensor(f"{name}.offsets", offsets, np.int64, (blocks + 1,))
    if offsets[0] or offsets[-1] != rows or (np.diff(offsets) < 1).any():
        raise NativeError(f"{name}.offsets: expected an ascent from 0 to {rows}, got another")
    return fields | {
        "bias": library.pointer(bias),
        "offsets": library.pointer(offsets),
        "rows": rows,
        "blocks": blocks,
        "block_size": block_size,
    }
