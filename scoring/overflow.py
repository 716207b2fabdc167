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
    log_probs: Array, *, row: Int64 | None = None, absent: Array | np.bool_ | None = None
) -> Int64:
    """Returns the numbers of the rows that have a result that is not finite, ascending.

    Args:
        log_probs: a graph's log-probabilities, [rows, ...], or [pairs] of the rows `row`
        absent: True where -inf stands for a target that is not there; it has a shape that NumPy
            broadcasts to that of `log_probs`
    """
    if all_finite(log_probs):
        return np.empty(0, dtype=np.int64)
    is_bad = ~np.isfinite(log_probs)
    if absent is not None:
        is_bad &= ~(absent & np.isneginf(log_probs))
    if row is not None:
        return np.unique(row[is_bad])
    return np.flatnonzero(is_bad.reshape(len(is_bad), -1).any(axis=1))


def overflow_sentence(inputs: Float32) -> str | None:
    """Returns the sentence about a row that overflowed, or None if the row is not to blame."""
    largest = float(np.abs(inputs).max(initial=0))
    if largest < _MIN_LARGEST_INPUT:
        return None
    return (
        f"expected numbers whose logits are within float32, got an overflow with numbers up to "
        f"{largest:g}: scale the row as in the model's training"
    )
