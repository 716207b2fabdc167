"""Ranking of targets by log-probability, shared by the references of all families."""

import numpy as np

from .arrays import Float64, Int64
from .errors import QueryError


def top_k_of(log_probs: Float64, k: int) -> tuple[Float64, Int64]:
    """Return (log p, target), both [batch, k]: the k largest of each row of a full distribution.

    Ties go to the lower target.

    Raises:
        QueryError: k is not between 1 and the number of targets.
    """
    num_targets = log_probs.shape[1]
    if not 1 <= k <= num_targets:
        raise QueryError(f"k: expected 1 to {num_targets}, got {k}")
    order = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(log_probs, order, axis=1), order
