"""What every family's reference asks of a question, and how it ranks an answer."""

import numpy as np

from .arrays import Array, Float64, Int64, expect_hidden, expect_targets
from .errors import QueryError


def expect_pairs(
    hidden: Array, row: Array, target: Array, *, hidden_size: int, num_targets: int
) -> None:
    """Raise QueryError unless every (row, target) names a row of `hidden` and a target."""
    expect_hidden(hidden, hidden_size)
    expect_targets(target, num_targets)
    if len(row) and not 0 <= row.min() <= row.max() < len(hidden):
        raise QueryError(f"row: expected 0 to {len(hidden) - 1}, got {row.min()} to {row.max()}")


def likeliest(log_probs: Float64, k: int) -> tuple[Float64, Int64]:
    """The k largest of each row of a full distribution: (log p, target); ties to the lower target.

    Raises:
        QueryError: k that is not 1 to the number of targets.
    """
    num_targets = log_probs.shape[1]
    if not 1 <= k <= num_targets:
        raise QueryError(f"k: expected 1 to {num_targets}, got {k}")
    order = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(log_probs, order, axis=1), order
