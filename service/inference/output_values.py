"""The edge where log-probabilities become what a client reads."""

import math

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.probability import few_to_probability, probability_dtype, to_probability
from hsoftmax.service.errors import InferenceFailed

from .operation import Fields

_FEW = 16
_NOT_A_NUMBER = "the graph gave a result that is not a number"


def field(log: bool) -> str:
    """The answer's field that `numbers` goes under."""
    return "log_probabilities" if log else "probabilities"


def numbers(log_probs: Array, log: bool) -> Array:
    """log_probs, or exp of them. Raises InferenceFailed on NaN."""
    if log_probs.ndim == 1 and log_probs.size <= _FEW:
        return _few(log_probs.tolist(), log)
    # Rounding may leave a log-probability just above zero.
    clipped = np.minimum(log_probs, 0, dtype=np.float32)
    smallest = clipped.min(initial=0)  # NaN, if there is one
    if math.isnan(smallest):
        raise InferenceFailed(_NOT_A_NUMBER)
    if log:
        return clipped
    # float32 holds all that the graph knew, takes a quarter of the time, and its JSON is a third
    # shorter; only what it cannot hold goes through float64.
    return to_probability(clipped, probability_dtype(smallest))


def _few(log_probs: list[float], log: bool) -> Array:
    """The same, where calling NumPy five times would take longer than all else."""
    if any(map(math.isnan, log_probs)):
        raise InferenceFailed(_NOT_A_NUMBER)
    clipped = [min(value, 0.0) for value in log_probs]
    if log:
        return np.array(clipped, dtype=np.float32)
    return np.array(few_to_probability(clipped), probability_dtype(min(clipped, default=0.0)))


def listed(targets: Array, values: Array, labels: tuple[str, ...] | None, log: bool) -> Fields:
    """Targets with their labels, if there are any, and their numbers."""
    named = {} if labels is None else {"labels": [labels[t] for t in targets]}
    return {"targets": targets, **named, field(log): values}
