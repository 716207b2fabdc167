"""Check of (row, target) pairs, shared by the references of all families."""

from .arrays import Array, expect_hidden, expect_targets
from .errors import QueryError


def expect_pairs(
    hidden: Array, row: Array, target: Array, *, hidden_size: int, num_targets: int
) -> None:
    """Raise QueryError unless every (row, target) names a row of `hidden` and a target."""
    expect_hidden(hidden, hidden_size)
    expect_targets(target, num_targets)
    if len(row) and not 0 <= row.min() <= row.max() < len(hidden):
        raise QueryError(f"row: expected 0 to {len(hidden) - 1}, got {row.min()} to {row.max()}")
