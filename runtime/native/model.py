"""Describes the tensors of a bundle to the library, and checks that their sizes fit each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hsoftmax.models.arrays import Array
from hsoftmax.models.storage.precision import scale_name

from .library import NativeError, NativeLibrary, expect_tensor

_WEIGHT_TYPES = {"float32": 0, "float16": 1, "int8": 2, "uint16": 3}  # uint16: bfloat16


@dataclass(frozen=True)
class NativeModel:
    """A structure of the library that points to the tensors of a bundle, which stay mapped.

    Attributes:
        family: the part of the library's function names that says which family they compute
        structure: the structure, as cffi has it
        noise_per_sample: the uniform numbers that one draw takes
        kept: the arrays and structures that `structure` points to; a pointer keeps none alive
    """

    family: str
    structure: Any
    hidden_size: int
    num_targets: int
    noise_per_sample: int
    kept: tuple[Any, ...]


def weight_fields(
    library: NativeLibrary,
    name: str,
    tensors: Mapping[str, Array],
    shape: tuple[int, ...],
    rows: int,
) -> dict[str, Any]:
    """Return the fields of a weight of so many rows.

    Raises NativeError for another type or shape, or an int8 weight without a scale.
    """
    weight, scale = tensors[name], scale_name(name)
    if weight.dtype.name not in _WEIGHT_TYPES:
        raise NativeError(f"{name}: expected {', '.join(_WEIGHT_TYPES)}, got {weight.dtype}")
    expect_tensor(name, weight, weight.dtype, shape)
    if weight.dtype == np.int8 and scale not in tensors:
        raise NativeError(f"{scale}: expected one for an int8 weight, got none")
    return {
        "weight": library.pointer(weight if weight.size else None),
        "scale": optional_pointer(library, scale, tensors, np.float32, rows),
        "weight_type": _WEIGHT_TYPES[weight.dtype.name],
    }


def optional_pointer(
    library: NativeLibrary, name: str, tensors: Mapping[str, Array], dtype: DTypeLike, count: int
) -> Any:  # noqa: ANN401  cffi's type
    """Return the pointer to a tensor [count]; null if there is none.

    Raises NativeError for another type or shape.
    """
    tensor = tensors.get(name)
    if tensor is not None:
        expect_tensor(name, tensor, dtype, (count,))
    return library.pointer(tensor)
