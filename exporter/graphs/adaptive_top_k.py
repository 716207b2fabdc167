"""Lowers top_k of an adaptive softmax: it computes the shortlist, and only tails that can matter.

A target's probability is at most that of its tail's row in the head. Each row of the batch opens
its tails in descending order of that bound, one per round, while the bound is at least the k-th
best log p so far. Rows that open the same tail in a round share one read of its weights. The result
of a row does not depend on the other rows.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax

from .chunked import map_chunks
from .ops import between, column, concat, full, integer, ints, length, positions, real, scalar
from .projected import ProjectedWeights, head, tails
from .top_k_merge import any_true, merge_top_k, pad_to_k, scatter_rows
from .weights import Weights


def top_k(
    model: AdaptiveSoftmax, weights: Weights, hidden: Var, k: Var, max_blocks: Var
) -> tuple[Var, ...]:
    """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B].

    A block is a tail; max_blocks 0 means no limit. A row with a limit still opens tails until it
    has k targets.
    """
    shortlist, end = ints(model.shortlist), ints(model.head.num_rows)
    rows = head(model, weights).log_softmax(hidden)
    best = _top_k_of_shortlist(model, between(rows, ints(0), shortlist, axis=1), k)
    bounds, order = op.top_k(between(rows, shortlist, end, axis=1), ints(len(model.tails)))
    # A bound of -inf follows the last tail.
    bounds = op.pad(bounds, ints(0, 1), real(-np.inf), ints(1))
    log_prob, target, opened = _open_tails(
        model, weights, hidden, max_blocks, (*best, bounds, order)
    )
    exact = op.not_(_may_improve(bounds, opened, log_prob))
    return log_prob, target, opened, exact


def _top_k_of_shortlist(model: AdaptiveSoftmax, log_probs: Var, k: Var) -> tuple[Var, Var]:
    log_prob, target = op.top_k(log_probs, op.min([k, ints(model.shortlist)]))
    return pad_to_k(log_prob, k, -np.inf), pad_to_k(target, k, model.num_targets)


def _open_tails(
    model: AdaptiveSoftmax,
    weights: Weights,
    hidden: Var,
    max_blocks: Var,
    start: tuple[Var, Var, Var, Var],
) -> tuple[Var, ...]:
    """Open tails until none can improve a result or is allowed: (log_prob, target, opened)."""
    log_prob, target, bounds, order = start

    def active(opened: Var, log_prob: Var) -> Var:
        return op.and_(
            _may_improve(bounds, opened, log_prob), _within_limit(max_blocks, opened, log_prob)
        )

    def body(i: Var, condition: Var, opened: Var, log_prob: Var, target: Var) -> list[Var]:
        is_active = active(opened, log_prob)
        tail_of_row = op.gather(order, scalar(i), axis=1)
        best = (log_prob, target)
        for j, tail in enumerate(tails(model, weights)):
            row = positions(op.and_(is_active, op.equal(tail_of_row, integer(j))))
            best = _merge_tail(
                model, tail, j, hidden, row, op.gather(bounds, scalar(i), axis=1), best
            )
        opened = op.add(opened, op.cast(is_active, to=np.int64))
        return [any_true(active(opened, best[0])), opened, *best]

    no_tails = full(length(hidden), 0)
    opened, log_prob, target = op.loop(
        integer(len(model.tails)),
        any_true(active(no_tails, log_prob)),
        v_initial=[no_tails, log_prob, target],
        body=body,
    )
    return log_prob, target, opened


def _may_improve(bounds: Var, opened: Var, log_prob: Var) -> Var:
    """Return bool [B]: an unopened tail may hold one of the k best targets, or tie the last."""
    bound = op.gather_elements(bounds, column(opened), axis=1)
    return op.greater_or_equal(op.squeeze(bound, ints(1)), _last_of_top_k(log_prob))


def _within_limit(max_blocks: Var, opened: Var, log_prob: Var) -> Var:
    """Return bool [B]: the row may open another tail."""
    unlimited = op.equal(max_blocks, ints(0))
    missing = op.equal(_last_of_top_k(log_prob), real(-np.inf))
    return op.or_(op.or_(unlimited, op.less(opened, max_blocks)), missing)


def _merge_tail(
    model: AdaptiveSoftmax,
    tail: ProjectedWeights,
    index: int,
    hidden: Var,
    row: Var,
    bound: Var,
    best: tuple[Var, Var],
) -> tuple[Var, Var]:
    """Merge a tail's k best targets into the best of these rows; `row` may be empty."""
    k = length(best[0], axis=1)

    def chunk(start: Var, end: Var) -> tuple[Var, ...]:
        chunk_rows = between(row, start, end)
        local, target = _top_k_of_tail(tail, model.cutoffs[index], op.gather(hidden, chunk_rows), k)
        log_prob = op.add(local, column(op.gather(bound, chunk_rows)))
        old_log_prob, old_target = (op.gather(values, chunk_rows) for values in best)
        return merge_top_k(
            concat(old_log_prob, log_prob, axis=1), concat(old_target, target, axis=1), k
        )

    def with_tail() -> list[Var]:
        return scatter_rows(best, row, map_chunks(length(row), tail.rows_per_chunk, chunk))

    is_any = op.greater(length(row), ints(0))
    log_prob, target = op.if_(is_any, then_branch=with_tail, else_branch=lambda: best)
    return log_prob, target


def _top_k_of_tail(tail: ProjectedWeights, cutoff: int, hidden: Var, k: Var) -> tuple[Var, Var]:
    """Return (log p within the tail, target), [m, <= k]: the k best, or all, targets of a tail."""
    local, position = op.top_k(tail.log_softmax(hidden), op.min([k, ints(tail.size)]))
    return local, op.add(position, integer(cutoff))


def _last_of_top_k(log_prob: Var) -> Var:
    """Return [B]: the k-th best log p of each row."""
    last = op.sub(length(log_prob, axis=1), ints(1))
    return op.squeeze(op.gather(log_prob, last, axis=1), ints(1))
