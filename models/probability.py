"""Turns log-probabilities into probabilities: the one place where `exp` is taken.

`scoring` and `service` call it where results leave the program.
"""

import math
from collections.abc import Sequence

import numpy as np

from .arrays import Array

FloatType = type[np.float32] | type[np.float64]

_MIN_FLOAT32_LOG_PROB = math.log(np.finfo(np.float32).tiny)


def to_probability(log_prob: Array, dtype: FloatType = np.float64) -> Array:
    """Returns exp(log_prob), in float64 by default: float32 loses numbers below 1e-38."""
    probability: Array = np.exp(log_prob, dtype=dtype)
    return probability


def few_to_probability(log_prob: Sequence[float]) -> list[float]:
    """Returns exp of a few Python numbers, for which calling NumPy takes longer than the work."""
    return [math.exp(value) for value in log_prob]


def probability_dtype(min_log_prob: float) -> FloatType:
    """Returns float32 if it holds exp(min_log_prob) at full precision, else float64."""
    return np.float32 if min_log_prob > _MIN_FLOAT32_LOG_PROB else np.float64
