"""top_k of an adaptive softmax: the shortlist, and only those tails that can still matter.

A target is no likelier than its tail's row in the head. Each row opens its tails in the order of
that bound, one a round, while the bound is not below the k-th best found so far; rows that open the
same tail in a round share its read. How far a row goes depends on nothing but the row.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax

from .chunked import in_chunks
from .ops import between, column, concat, full, integer, ints, length, positions, real, scalar
from .projected import ProjectedWeights, head, tails
from .top_k_merge import any_of, merge, put, widen
from .weights import Weights


def top_k(
    model: AdaptiveSoftmax, weights: Weights, hidden: Var, k: Var, max_blocks: Var
) -> tuple[Var, ...]:
    """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B].

    A block is a tail; max_blocks 0 means no limit. A limited row still opens tails until it has k
    targets to answer.
    """
    shortlist, end = ints(model.shortlist), ints(model.head.num_rows)
    rows = head(model, weights).log_softmax(hidden)
    found = _shortlisted(model, between(rows, ints(0), shortlist, axis=1), k)
    bounds, order = op.top_k(between(rows, shortlist, end, axis=1), ints(len(model.tails)))
    # After the last tail nothing is left: a bound that nothing is below.
    bounds = op.pad(bounds, ints(0, 1), real(-np.inf), ints(1))
    log_prob, target, opened = _rounds(model, weights, hidden, max_blocks, (*found, bounds, order))
    exact = op.not_(_unproven(bounds, opened, log_prob))
    return log_prob, target, opened, exact


def _shortlisted(model: AdaptiveSoftmax, log_probs: Var, k: Var) -> tuple[Var, Var]:
    log_prob, target = op.top_k(log_probs, op.min([k, ints(model.shortlist)]))
    return widen(log_prob, k, -np.inf), widen(target, k, model.num_targets)


def _rounds(
    model: AdaptiveSoftmax,
    weights: Weights,
    hidden: Var,
    max_blocks: Var,
    start: tuple[Var, Var, Var, Var],
) -> tuple[Var, ...]:
    """Open tails until none can matter, or none more may: (log_prob, target, opened)."""
    log_prob, target, bounds, order = start

    def active(opened: Var, log_prob: Var) -> Var:
        return op.and_(_unproven(bounds, opened, log_prob), _allowed(max_blocks, opened, log_prob))

    def body(i: Var, going: Var, opened: Var, log_prob: Var, target: Var) -> list[Var]:
        open_now = active(opened, log_prob)
        tail_of_row = op.gather(order, scalar(i), axis=1)
        found = (log_prob, target)
        for j, tail in enumerate(tails(model, weights)):
            row = positions(op.and_(open_now, op.equal(tail_of_row, integer(j))))
            found = _open(model, tail, j, hidden, row, op.gather(bounds, scalar(i), axis=1), found)
        opened = op.add(opened, op.cast(open_now, to=np.int64))
        return [any_of(active(opened, found[0])), opened, *found]

    unopened = full(length(hidden), 0)
    opened, log_prob, target = op.loop(
        integer(len(model.tails)),
        any_of(active(unopened, log_prob)),
        v_initial=[unopened, log_prob, target],
        body=body,
    )
    return log_prob, target, opened


def _unproven(bounds: Var, opened: Var, log_prob: Var) -> Var:
    """[B] whether an unopened tail might still hold one of the k best, or tie with the last."""
    bound = op.gather_elements(bounds, column(opened), axis=1)
    return op.greater_or_equal(op.squeeze(bound, ints(1)), _kth(log_prob))


def _allowed(max_blocks: Var, opened: Var, log_prob: Var) -> Var:
    """[B] whether a row may open another tail."""
    unlimited = op.equal(max_blocks, ints(0))
    missing = op.equal(_kth(log_prob), real(-np.inf))
    return op.or_(op.or_(unlimited, op.less(opened, max_blocks)), missing)


def _open(
    model: AdaptiveSoftmax,
    tail: ProjectedWeights,
    number: int,
    hidden: Var,
    row: Var,
    bound: Var,
    found: tuple[Var, Var],
) -> tuple[Var, Var]:
    """Merge a tail's k best into what these rows have found; an empty `row` opens nothing."""
    k = length(found[0], axis=1)

    def chunk(start: Var, end: Var) -> tuple[Var, ...]:
        here = between(row, start, end)
        local, target = _best(tail, model.cutoffs[number], op.gather(hidden, here), k)
        log_prob = op.add(local, column(op.gather(bound, here)))
        old_log_prob, old_target = (op.gather(part, here) for part in found)
        return merge(concat(old_log_prob, log_prob, axis=1), concat(old_target, target, axis=1), k)

    def opened() -> list[Var]:
        return put(found, row, in_chunks(length(row), tail.rows_at_once, chunk))

    some = op.greater(length(row), ints(0))
    log_prob, target = op.if_(some, then_branch=opened, else_branch=lambda: found)
    return log_prob, target


def _best(tail: ProjectedWeights, cutoff: int, hidden: Var, k: Var) -> tuple[Var, Var]:
    """The k best of a tail, or all of a smaller one: (log p within it, target), [m, <= k]."""
    local, position = op.top_k(tail.log_softmax(hidden), op.min([k, ints(tail.size)]))
    return local, op.add(position, integer(cutoff))


def _kth(log_prob: Var) -> Var:
    """[B] the last of each row's k best, which are in descending order."""
    last = op.sub(length(log_prob, axis=1), ints(1))
    return op.squeeze(op.gather(log_prob, last, axis=1), ints(1))
