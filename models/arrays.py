"""Array type aliases, and checks that raise an error with the expected and the actual shape."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import QueryError, WeightsError

Array = NDArray[Any]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def expect_shape(name: str, array: Array, shape: Sequence[int]) -> None:
    """Raise WeightsError unless `array` has exactly this shape."""
    if array.shape != tuple(shape):
        raise WeightsError(f"{name}: expected {list(shape)}, got {list(array.shape)}")


def expect_ndim(name: str, array: Array, *axes: str) -> None:
    """Raise WeightsError unless `array` has one dimension for each named axis."""
    if array.ndim != len(axes):
        expected = f"[{', '.join(axes)}]"
        raise WeightsError(f"{name}: expected {expected}, got {list(array.shape)}")


def to_float32(name: str, array: Array) -> Float32:
    """Return the array as finite, C-order float32.

    Raises:
        WeightsError: not a number type, or NaN, infinity, or a value beyond float32.
    """
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"{name}: expected numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32)
        # A float64 sum is finite exactly if all terms are, and takes no mask as large as the array.
        total = converted.sum(dtype=np.float64)
    if not np.isfinite(total):
        first_wrong = int(np.flatnonzero(~np.isfinite(converted.ravel()))[0])
        index = [int(i) for i in np.unravel_index(first_wrong, converted.shape)]
        raise WeightsError(
            f"{name}: expected finite float32 values, got {array[tuple(index)]} at {index}"
        )
    return converted


def to_int64(name: str, array: Array) -> Int64:
    """Return the array as int64; raise WeightsError if its type is not an integer type."""
    if array.dtype.kind not in "iu":
        raise WeightsError(f"{name}: expected integers, got dtype {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.int64)


def expect_hidden(hidden: Array, hidden_size: int) -> None:
    """Raise QueryError unless `hidden` is [batch, hidden_size]."""
    if hidden.ndim != 2 or hidden.shape[1] != hidden_size:
        raise QueryError(f"hidden: expected [batch, {hidden_size}], got {list(hidden.shape)}")


def expect_targets(targets: Array, num_targets: int) -> None:
    """Raise QueryError unless every target lies in [0, num_targets)."""
    out_of_range = (targets < 0) | (targets >= num_targets)
    if out_of_range.any():
        raise QueryError(
            f"target: expected 0 to {num_targets - 1}, got {int(targets[out_of_range].flat[0])}"
        )
