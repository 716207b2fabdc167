"""AdaptiveSoftmax as ONNX graphs: one function per task, all in log space.

    log p(target) = head[target]                                        target < cutoffs[0]
                  = head[shortlist + i] + log_softmax(tail i)[target - cutoffs[i]]    otherwise

The head is read for every row; a tail only for the pairs that fall into it, behind an `If`. There
are few tails, so graphs spell each of them out.
"""

from collections.abc import Callable

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax

from .categorical import draw
from .chunked import in_chunks
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

# log_probs [calls, size] of a tail, and for each of its pairs: its call, and which pair it is.
InTail = Callable[[Var, Var, Var], tuple[Var, ...]]


def log_probs(model: AdaptiveSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, N]."""
    rows = head(model, weights).log_softmax(hidden)
    parts = [between(rows, ints(0), ints(model.shortlist), axis=1)]
    for i, tail in enumerate(tails(model, weights)):
        above = op.gather(rows, ints(model.shortlist + i), axis=1)
        parts.append(op.add(tail.log_softmax(hidden), above))
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

        def local(log_probs: Var, call: Var, pair: Var, position: Var = position) -> tuple[Var]:
            return (pick(log_probs, call, op.gather(position, pair)),)

        inside = op.equal(head_row, integer(model.shortlist + i))
        (total,) = _add_inside(tail, hidden, row, inside, local, (total,))
    return (total,)


def sample(model: AdaptiveSoftmax, weights: Weights, hidden: Var, noise: Var) -> tuple[Var, Var]:
    """hidden [B, H], noise [B, S, 2] in [0, 1) -> target [B, S], log_prob [B, S]."""
    shape = op.shape(noise, start=0, end=2)
    row = vector(op.expand(column(arange(count(hidden))), shape))
    first, second = (vector(op.gather(noise, integer(i), axis=2)) for i in range(2))
    top = head(model, weights)
    head_row, log_prob = draw(top.log_softmax(hidden), row, first, size=top.size)
    target = head_row
    for i, tail in enumerate(tails(model, weights)):
        # Rows of the head and targets differ from here on: the tail's row becomes its first target.
        shift = integer(model.cutoffs[i] - model.shortlist - i)

        def drawn(
            log_probs: Var, call: Var, pair: Var, size: int = tail.size, shift: Var = shift
        ) -> tuple[Var, Var]:
            position, local = draw(log_probs, call, op.gather(second, pair), size=size)
            return op.add(position, shift), local

        inside = op.equal(head_row, integer(model.shortlist + i))
        target, log_prob = _add_inside(tail, hidden, row, inside, drawn, (target, log_prob))
    return op.reshape(target, shape), op.reshape(log_prob, shape)


def _head_row(model: AdaptiveSoftmax, target: Var) -> Var:
    """The row of the head that a target is, or that its tail has."""
    head_row = target
    for i, cutoff in enumerate(model.cutoffs):
        beyond = op.greater_or_equal(target, integer(cutoff))
        head_row = op.where(beyond, integer(model.shortlist + i), head_row)
    return head_row


def _add_inside(
    tail: ProjectedWeights,
    hidden: Var,
    row: Var,
    inside: Var,
    answer: InTail,
    totals: tuple[Var, ...],
) -> tuple[Var, ...]:
    """Add the tail's answers to the totals of the pairs that are inside it, bool [P]."""
    pair = positions(inside)

    def opened() -> list[Var]:
        ordered, answers = _ask(tail, hidden, row, pair, answer)
        return [
            op.scatter_elements(total, ordered, part, reduction="add")
            for total, part in zip(totals, answers, strict=True)
        ]

    some = op.greater(length(pair), ints(0))
    return tuple(op.if_(some, then_branch=opened, else_branch=lambda: totals))


def _ask(
    tail: ProjectedWeights, hidden: Var, row: Var, pair: Var, answer: InTail
) -> tuple[Var, tuple[Var, ...]]:
    """The pairs in order of their rows, and the tail's answers to them in that order.

    A row that several pairs of a chunk ask about is computed once.
    """
    order = op.top_k(op.gather(row, pair), length(pair), largest=0)[1]
    ordered = op.gather(pair, order)

    def chunk(start: Var, end: Var) -> tuple[Var, ...]:
        here = between(ordered, start, end)
        distinct, _, call, _ = op.unique(op.gather(row, here))
        return answer(tail.log_softmax(op.gather(hidden, distinct)), call, here)

    return ordered, in_chunks(length(pair), tail.rows_at_once, chunk)
