"""Describes an adaptive softmax to the library."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array

from .library import NativeError, NativeLibrary, expect_tensor
from .model import NativeModel, optional_pointer, weight_fields

_MATRIX_AXES = 2
_NOISE_PER_SAMPLE = 2  # one number for the head, one for a tail


def adaptive_model(
    library: NativeLibrary, tensors: Mapping[str, Array], cutoffs: Sequence[int]
) -> NativeModel:
    """Describe head and tails. Raises NativeError if their tensors do not fit each other."""
    names = ["head", *(f"tail{i}" for i in range(len(cutoffs)))]
    hidden_size = _hidden_size(tensors)
    layers = [_layer(library, name, tensors, hidden_size) for name in names]
    sizes = [layer["rows"] for layer in layers]
    _expect_cutoffs(sizes, cutoffs)
    array = library.ffi.new("hsoftmax_layer[]", layers)
    structure = library.ffi.new("hsoftmax_adaptive *", {
        "layers": array,
        "num_layers": len(layers),
        "hidden_size": hidden_size,
    })  # fmt: skip
    num_targets, kept = sum(sizes) - len(cutoffs), (tensors, array)
    return NativeModel("adaptive", structure, hidden_size, num_targets, _NOISE_PER_SAMPLE, kept)


def _hidden_size(tensors: Mapping[str, Array]) -> int:
    """Return the number of columns of the head's projection or, without one, of its weight."""
    name = "head.projection" if "head.projection" in tensors else "head.weight"
    return int(_matrix(tensors, name).shape[1])


def _matrix(tensors: Mapping[str, Array], name: str) -> Array:
    if tensors[name].ndim != _MATRIX_AXES:
        raise NativeError(f"{name}: expected [rows, columns], got {list(tensors[name].shape)}")
    return tensors[name]


def _layer(
    library: NativeLibrary, name: str, tensors: Mapping[str, Array], hidden_size: int
) -> dict[str, Any]:
    """Describe a layer. Raises NativeError if its tensors do not fit each other."""
    rows, width = _matrix(tensors, f"{name}.weight").shape
    projection = tensors.get(f"{name}.projection")
    shape = (rows, hidden_size if projection is None else width)
    fields = weight_fields(library, f"{name}.weight", tensors, shape, rows)
    if projection is not None:
        expect_tensor(f"{name}.projection", projection, np.float32, (width, hidden_size))
    return fields | {
        "bias": optional_pointer(library, f"{name}.bias", tensors, np.float32, rows),
        "projection": library.pointer(projection if width else None),
        "rows": rows,
        "width": width,
    }


def _expect_cutoffs(sizes: Sequence[int], cutoffs: Sequence[int]) -> None:
    """Raise NativeError unless the layers of these sizes start at the cutoffs."""
    head, *tails = sizes
    starts = np.cumsum([head - len(tails), *tails[:-1]]).tolist()
    if list(cutoffs) != starts:
        raise NativeError(f"cutoffs: expected {starts}, as the tensors have, got {list(cutoffs)}")
