"""Lowers AdaptiveSoftmax into ONNX graphs: one function per task, all in log space.

    log p(target) = head[target]                                        target < cutoffs[0]
                  = head[shortlist + i] + log_softmax(tail i)[target - cutoffs[i]]    otherwise

A graph computes the head for every row, and a tail, inside an `If`, only for the pairs whose target
it holds. Graphs contain each tail as separate operators, because there are few.
"""

from collections.abc import Callable

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax

from .categorical import draw
from .chunked import map_chunks
from .ops import (
    arange,
    between,
    column,
    concat,
    count,
    integer,
    ints,
    length,
    pick,
    positions,
    vector,
)
from .projected import ProjectedWeights, head, tails
from .weights import Weights

# (log_probs [m, size] of a tail, row [p] of log_probs for each pair, index [p] of each pair) ->
# results, [p] each.
TailFunction = Callable[[Var, Var, Var], tuple[Var, ...]]


def log_probs(model: AdaptiveSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, N]."""
    rows = head(model, weights).log_softmax(hidden)
    parts = [between(rows, ints(0), ints(model.shortlist), axis=1)]
    for i, tail in enumerate(tails(model, weights)):
        tail_log_prob = op.gather(rows, ints(model.shortlist + i), axis=1)
        parts.append(op.add(tail.log_softmax(hidden), tail_log_prob))
    return (concat(*parts, axis=1),)


def cluster_log_probs(model: AdaptiveSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, shortlist + tails]: every row of the head."""
    return (head(model, weights).log_softmax(hidden),)


def target_log_prob(
    model: AdaptiveSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> tuple[Var]:
    """hidden [B, H], row [P], target [P] -> log_prob [P]."""
    head_row = _head_row(model, target)
    total = pick(head(model, weights).log_softmax(hidden), row, head_row)
    for i, tail in enumerate(tails(model, weights)):
        position = op.sub(target, integer(model.cutoffs[i]))

        def local(
            log_probs: Var, logits_row: Var, pair: Var, position: Var = position
        ) -> tuple[Var]:
            return (pick(log_probs, logits_row, op.gather(position, pair)),)

        in_tail = op.equal(head_row, integer(model.shortlist + i))
        (total,) = _add_tail_results(tail, hidden, row, in_tail, local, (total,))
    return (total,)


def sample(model: AdaptiveSoftmax, weights: Weights, hidden: Var, noise: Var) -> tuple[Var, Var]:
    """hidden [B, H], noise [B, S, 2] in [0, 1) -> target [B, S], log_prob [B, S]."""
    shape = op.shape(noise, start=0, end=2)
    row = vector(op.expand(column(arange(count(hidden))), shape))
    head_uniform, tail_uniform = (vector(op.gather(noise, integer(i), axis=2)) for i in range(2))
    head_layer = head(model, weights)
    head_row, log_prob = draw(
        head_layer.log_softmax(hidden), row, head_uniform, size=head_layer.size
    )
    target = head_row
    for i, tail in enumerate(tails(model, weights)):
        # Adding `shift` replaces the tail's row in the head by the first target of the tail.
        shift = integer(model.cutoffs[i] - model.shortlist - i)

        def draw_in_tail(
            log_probs: Var, logits_row: Var, pair: Var, size: int = tail.size, shift: Var = shift
        ) -> tuple[Var, Var]:
            position, local = draw(log_probs, logits_row, op.gather(tail_uniform, pair), size=size)
            return op.add(position, shift), local

        in_tail = op.equal(head_row, integer(model.shortlist + i))
        target, log_prob = _add_tail_results(
            tail, hidden, row, in_tail, draw_in_tail, (target, log_prob)
        )
    return op.reshape(target, shape), op.reshape(log_prob, shape)


def _head_row(model: AdaptiveSoftmax, target: Var) -> Var:
    """Return the head's row for each target: its own row, or that of its tail."""
    head_row = target
    for i, cutoff in enumerate(model.cutoffs):
        at_or_above = op.greater_or_equal(target, integer(cutoff))
        head_row = op.where(at_or_above, integer(model.shortlist + i), head_row)
    return head_row


def _add_tail_results(
    tail: ProjectedWeights,
    hidden: Var,
    row: Var,
    in_tail: Var,
    compute: TailFunction,
    totals: tuple[Var, ...],
) -> tuple[Var, ...]:
    """Add the tail's results to the totals of the pairs in the tail, bool [P]."""
    pair = positions(in_tail)

    def with_tail() -> list[Var]:
        ordered, results = _compute_tail(tail, hidden, row, pair, compute)
        return [
            op.scatter_elements(total, ordered, result, reduction="add")
            for total, result in zip(totals, results, strict=True)
        ]

    is_any = op.greater(length(pair), ints(0))
    return tuple(op.if_(is_any, then_branch=with_tail, else_branch=lambda: totals))


def _compute_tail(
    tail: ProjectedWeights, hidden: Var, row: Var, pair: Var, compute: TailFunction
) -> tuple[Var, tuple[Var, ...]]:
    """Return the pairs in ascending order of their rows, and the tail's results in that order.

    Pairs of one chunk that share a row share its logits.
    """
    order = op.top_k(op.gather(row, pair), length(pair), largest=0)[1]
    ordered = op.gather(pair, order)

    def chunk(start: Var, end: Var) -> tuple[Var, ...]:
        chunk_pairs = between(ordered, start, end)
        distinct_rows, _, logits_row, _ = op.unique(op.gather(row, chunk_pairs))
        return compute(tail.log_softmax(op.gather(hidden, distinct_rows)), logits_row, chunk_pairs)

    return ordered, map_chunks(length(pair), tail.rows_per_chunk, chunk)
