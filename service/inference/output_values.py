"""Converts a graph's log-probabilities to the numbers of a response.

`to_target_values` converts those of single targets, each by itself: a row has the same numbers, to
the bit, alone and beside other rows. `to_values` converts matrices, whose log-probabilities depend
on the batch anyway, in a quarter of the time.
"""

import numpy as np
import orjson

from hsoftmax.models.arrays import Array
from hsoftmax.models.probability import (
    MIN_FLOAT32_LOG_PROB,
    few_to_probability,
    probability_dtype,
    to_probability,
)
from hsoftmax.service.codecs.json import encode_array

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


def to_target_values(log_probs: Array, log: bool, max_log_prob: float) -> Array:
    """Convert as `to_values` does, but with no number that depends on the others.

    Every exp is taken in float64 by NumPy, whose float32 exp and whose `math.exp` differ in the
    last digit. A probability that float32 holds is rounded to it.
    """
    if log:
        return to_values(log_probs, log, max_log_prob)
    clipped, smallest = _clip(log_probs, max_log_prob)
    probabilities = to_probability(clipped)
    if probability_dtype(smallest) is np.float32:
        return probabilities.astype(np.float32)
    return _with_small(clipped, probabilities)


def _clip(log_probs: Array, max_log_prob: float) -> tuple[Array, float]:
    """Return the log-probabilities, none of them above `max_log_prob`, and the smallest."""
    if log_probs.size <= _MAX_SMALL_VALUES:  # where Python takes less time than NumPy
        values = log_probs.ravel().tolist()
        if max(values, default=0.0) <= max_log_prob:
            return log_probs, min(values, default=0.0)
    clipped = np.minimum(log_probs, max_log_prob, dtype=np.float32)
    return clipped, float(clipped.min(initial=0))


def _with_small(log_probs: Array, probabilities: Array) -> Array:
    """Return float64 numbers: the digits of float32 for those that it holds, all for the others."""
    digits: Array = np.array(orjson.loads(encode_array(probabilities.astype(np.float32))))
    return np.where(log_probs > MIN_FLOAT32_LOG_PROB, digits, probabilities)


def target_fields(
    targets: Array, values: Array, labels: tuple[str, ...] | None, log: bool
) -> ResponseFields:
    """Response fields of one row: targets, their labels if the bundle has labels, and numbers."""
    named = {} if labels is None else {"labels": [labels[t] for t in targets]}
    return {"targets": targets, **named, field_name(log): values}
