"""Keeps the targets whose probability is above a threshold, of the likeliest that a search returns.

The probabilities of a row sum to one, so fewer than 1/p targets have a probability above p, and
they are the likeliest ones. A search for so many targets finds all of them. The service's `top_k`
and `results` call it.
"""

import math

import numpy as np

from hsoftmax.models.arrays import Array, Int64

_SUM_TOLERANCE = 1e-3  # of the sum of a row's probabilities, which float32 rounds


def searched_targets(
    k: int, threshold: float | None, num_targets: int, max_log_prob: float = 0.0
) -> int:
    """Returns how many targets a search must return, to know the k likeliest above the threshold.

    One target more than k is searched where there may be more, so that the answer can say so.
    Scores that may exceed one (`max_log_prob`) do not sum to one: then nothing limits their number.
    """
    if threshold is None:
        return k
    most = num_targets
    if threshold > 0 and max_log_prob <= 0:
        most = int(min(most, (1 + _SUM_TOLERANCE) / threshold))
    return max(1, min(k + 1, most))


def count_above(log_prob: Array, threshold: float | None) -> Int64:
    """Returns how many log-probabilities of each row of a search are above log(threshold).

    Without a threshold it counts the targets that the search found. The rest has -inf.
    """
    lowest = np.float64(math.log(threshold) if threshold else -math.inf)
    counts: Int64 = (log_prob > lowest).sum(axis=1)
    return counts
