"""Turns log-probabilities into probabilities: the one place where `exp` is taken.

`scoring` and `service` call it where results leave the program.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import Array

FloatType = type[np.float32] | type[np.float64]

_MAX_SMALL_VALUES = 16
MIN_FLOAT32_LOG_PROB = math.log(np.finfo(np.float32).tiny)


def max_log_prob(attributes: Mapping[str, Any]) -> float:
    """Returns the largest log-probability that a model of these attributes gives: 0, or infinity.

    fastText's own scores, which `compat` keeps, may exceed one.
    """
    return math.inf if attributes.get("compat") == "fasttext" else 0.0


def all_finite(log_probs: Array) -> bool:
    """True if no log-probability is NaN or infinite."""
    if log_probs.size <= _MAX_SMALL_VALUES:  # where two NumPy calls take longer than the work
        return all(map(math.isfinite, log_probs.ravel().tolist()))
    return math.isfinite(log_probs.min()) and math.isfinite(log_probs.max())


def to_probability(log_prob: Array, dtype: FloatType = np.float64) -> Array:
    """Returns exp(log_prob), in float64 by default: float32 loses numbers below 1e-38."""
    probability: Array = np.exp(log_prob, dtype=dtype)
    return probability


def few_to_probability(log_prob: Sequence[float]) -> list[float]:
    """Returns exp of a few Python numbers, for which calling NumPy takes longer than the work."""
    return [math.exp(value) for value in log_prob]


def probability_dtype(min_log_prob: float) -> FloatType:
    """Returns float32 if it holds exp(min_log_prob) at full precision, else float64."""
    return np.float32 if min_log_prob > MIN_FLOAT32_LOG_PROB else np.float64
