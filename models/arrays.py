"""Array types, and the checks that turn a wrong array into one clear sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import QueryError, WeightsError

Array = NDArray[Any]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def expect_shape(name: str, array: Array, shape: Sequence[int]) -> None:
    """Raise WeightsError unless `array` has exactly this shape."""
    if array.shape != tuple(shape):
        raise WeightsError(f"{name}: expected {list(shape)}, got {list(array.shape)}")


def expect_ndim(name: str, array: Array, *axes: str) -> None:
    """Raise WeightsError unless `array` has one dimension for each named axis."""
    if array.ndim != len(axes):
        wanted = f"[{', '.join(axes)}]"
        raise WeightsError(f"{name}: expected {wanted}, got {list(array.shape)}")


def floats(name: str, array: Array) -> Float32:
    """The array as finite, C-order float32.

    Raises:
        WeightsError: not a number type, or NaN, infinity, or beyond float32.
    """
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"{name}: expected numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32)
        # A float64 sum is finite exactly when all terms are, and needs no mask of all weights.
        total = converted.sum(dtype=np.float64)
    if not np.isfinite(total):
        bad = int(np.flatnonzero(~np.isfinite(converted.ravel()))[0])
        where = [int(i) for i in np.unravel_index(bad, converted.shape)]
        raise WeightsError(
            f"{name}: expected finite float32 values, got {array[tuple(where)]} at {where}"
        )
    return converted


def integers(name: str, array: Array) -> Int64:
    """The array as int64; WeightsError if it is not of an integer type."""
    if array.dtype.kind not in "iu":
        raise WeightsError(f"{name}: expected integers, got dtype {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.int64)


def expect_hidden(hidden: Array, hidden_size: int) -> None:
    """Raise QueryError unless `hidden` is [batch, hidden_size]."""
    if hidden.ndim != 2 or hidden.shape[1] != hidden_size:
        raise QueryError(f"hidden: expected [batch, {hidden_size}], got {list(hidden.shape)}")


def expect_targets(targets: Array, num_targets: int) -> None:
    """Raise QueryError unless every target lies in [0, num_targets)."""
    wrong = (targets < 0) | (targets >= num_targets)
    if wrong.any():
        raise QueryError(
            f"target: expected 0 to {num_targets - 1}, got {int(targets[wrong].flat[0])}"
        )
