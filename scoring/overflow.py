"""Finds rows whose logits overflowed float32: their inputs are finite, their results are not.

`results` calls it for the rows of streams and files, the service for the rows of a query. One row's
overflow never changes another row's result.
"""

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.probability import all_finite

# Logits of smaller inputs overflow only with weights beyond 1e20: then the fault is not the row's.
_MIN_LARGEST_INPUT = 1e10


def overflowed_rows(
    log_probs: Array,
    inputs: Float32,
    *,
    row: Int64 | None = None,
    absent: Array | np.bool_ | None = None,
) -> Int64:
    """Returns the numbers of the rows that have a result that is not finite, ascending.

    Of a row with ordinary numbers -inf is a result: weights may forbid a target with a huge bias.

    Args:
        log_probs: a graph's log-probabilities, [rows, ...], or [pairs] of the rows `row`
        inputs: [rows, ...] the numbers of each row
        absent: True where -inf stands for a target that is not there; it has a shape that NumPy
            broadcasts to that of `log_probs`
    """
    if all_finite(log_probs):
        return np.empty(0, dtype=np.int64)
    is_huge = _largest(inputs) >= _MIN_LARGEST_INPUT
    if row is not None:
        is_huge = is_huge[row]
    is_impossible = is_huge.reshape(-1, *[1] * (log_probs.ndim - 1))
    if absent is not None:
        is_impossible = is_impossible & ~absent
    is_bad = ~np.isfinite(log_probs) & (is_impossible | ~np.isneginf(log_probs))
    if row is not None:
        return np.unique(row[is_bad])
    return np.flatnonzero(is_bad.reshape(len(is_bad), -1).any(axis=1))


def overflow_sentence(inputs: Float32) -> str | None:
    """Returns the sentence about a row that overflowed, or None if the row is not to blame."""
    (largest,) = _largest(inputs[None]).tolist()
    if largest < _MIN_LARGEST_INPUT:
        return None
    return (
        f"expected numbers whose logits are within float32, got an overflow with numbers up to "
        f"{largest:g}: scale the row as in the model's training"
    )


def _largest(inputs: Float32) -> Float32:
    """Returns the largest magnitude among the numbers of each row."""
    largest: Float32 = np.abs(inputs.reshape(len(inputs), -1)).max(axis=1, initial=0)
    return largest
