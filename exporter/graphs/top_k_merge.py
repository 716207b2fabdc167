"""Merges lists of candidates (log p, target) into the k best, in descending order."""

from collections.abc import Callable, Sequence

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import column, concat, integer, ints, length, positions, real


def merge_top_k(log_prob: Var, target: Var, k: Var) -> tuple[Var, Var]:
    """Candidates [m, n] -> the k best [m, k]; ties go to the lower target."""
    target, target_order = op.top_k(target, length(target, axis=1), largest=0)
    log_prob, best = op.top_k(op.gather_elements(log_prob, target_order, axis=1), k)
    return log_prob, op.gather_elements(target, best, axis=1)


def pad_to_k(x: Var, k: Var, value: float | int) -> Var:
    """Pad [m, n <= k] to [m, k] with `value`."""
    fill = real(value) if isinstance(value, float) else integer(value)
    return op.pad(x, concat(ints(0), op.sub(k, length(x, axis=1))), fill, ints(1))


def recompute_rows(
    compute: Callable[[Var], Sequence[Var]], hidden: Var, is_selected: Var, results: Sequence[Var]
) -> tuple[Var, ...]:
    """Replace the results of the selected rows (bool [B]) by `compute` of their hidden rows."""

    def replaced() -> list[Var]:
        row = positions(is_selected)
        return scatter_rows(results, row, compute(op.gather(hidden, row)))

    return tuple(op.if_(any_true(is_selected), then_branch=replaced, else_branch=lambda: results))


def scatter_rows(results: Sequence[Var], row: Var, replacements: Sequence[Var]) -> list[Var]:
    """Replace rows `row` [m] of the results [B, ...] by the replacements [m, ...]."""
    return [
        op.scatter_nd(old, column(row), new) for old, new in zip(results, replacements, strict=True)
    ]


def any_true(condition: Var) -> Var:
    """Return True if a bool vector, which may be empty, holds a true element."""
    return op.greater(length(positions(condition)), ints(0))
