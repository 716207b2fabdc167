"""Converts a graph's log-probabilities to the numbers of a response."""

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.probability import few_to_probability, probability_dtype, to_probability

from .operation import ResponseFields

_MAX_SMALL_VALUES = 16


def field_name(log: bool) -> str:
    """The response field of the numbers."""
    return "log_probabilities" if log else "probabilities"


def to_values(log_probs: Array, log: bool, max_log_prob: float) -> Array:
    """The log-probabilities, or their exp, none of them above `max_log_prob`, or its exp."""
    if log_probs.ndim == 1 and log_probs.size <= _MAX_SMALL_VALUES:
        return _small_to_values(log_probs.tolist(), log, max_log_prob)
    # Rounding may leave a log-probability just above zero.
    clipped = np.minimum(log_probs, max_log_prob, dtype=np.float32)
    smallest = clipped.min(initial=0)
    if log:
        return clipped
    # float32 holds the precision of the graph, takes a quarter of the time, and its JSON is a third
    # shorter. Only values below its range need float64.
    return to_probability(clipped, probability_dtype(smallest))


def _small_to_values(log_probs: list[float], log: bool, max_log_prob: float) -> Array:
    """`to_values` for a few numbers, where five NumPy calls take longer than all else."""
    clipped = [min(value, max_log_prob) for value in log_probs]
    if log:
        return np.array(clipped, dtype=np.float32)
    return np.array(few_to_probability(clipped), probability_dtype(min(clipped, default=0.0)))


def target_fields(
    targets: Array, values: Array, labels: tuple[str, ...] | None, log: bool
) -> ResponseFields:
    """Response fields of one row: targets, their labels if the bundle has labels, and numbers."""
    named = {} if labels is None else {"labels": [labels[t] for t in targets]}
    return {"targets": targets, **named, field_name(log): values}
