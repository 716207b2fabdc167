"""Visit each distinct block of a level once, with all the rows that ask for it.

A *pair* asks for one block on behalf of one hidden row. Equal pairs are one *call*, whose logits
are computed once; calls for one block share one pass over its weights: that is what a query costs.

    for block in distinct(blocks):
        answers[pairs of block] = choose(log_softmax(logits(block, calls)), pairs of block)

A few pairs are answered one by one: to sort them is some forty small operators, the price of a
third of a block, and the second pair to ask for a block finds it in cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .levels import LevelWeights, logits
from .ops import (
    arange,
    between,
    column,
    concat,
    count,
    full,
    integer,
    ints,
    length,
    scalar,
    vector,
    yes,
)
from .states import States

FEW = 4  # pairs


@dataclass(frozen=True)
class Visit:
    """One block, with W pairs that ask for it; W is the same for all blocks of a query.

    Places beyond a block's pairs hold zeros, and what is answered for them is thrown away.
    """

    start: Var  # [1] first row of the block
    end: Var  # [1] and the row after its last
    log_probs: Var  # [calls, K] within the block
    call: Var  # [W] the call of each pair


Choose = Callable[..., Sequence[Var]]  # Visit, then [W] of each vector given -> answers [W, ...]


def visit_blocks(
    level: LevelWeights, hidden: Var, row: Var, block: Var, choose: Choose, *given: Var
) -> tuple[Var, ...]:
    """The answers of `choose` for pairs (row [P], block [P]), each [P, ...].

    Args:
        given: more about each pair, [P]; `choose` gets its part of them.
    """
    return tuple(
        op.if_(
            op.less_or_equal(length(block), ints(FEW)),
            then_branch=lambda: _one_by_one(level, hidden, row, block, choose, given),
            else_branch=lambda: _shared(level, hidden, row, block, choose, given),
        )
    )


@dataclass(frozen=True)
class _Distinct:
    """What ONNX `Unique` says of a vector [n] with d distinct values."""

    value: Var  # [d] ascending
    first: Var  # [d] where each occurs first
    number: Var  # [n] which of them each element is
    times: Var  # [d] how often each occurs


def _one_by_one(
    level: LevelWeights, hidden: Var, row: Var, block: Var, choose: Choose, given: Sequence[Var]
) -> list[Var]:
    """Pairs as they come."""
    states = level.states(op.gather(hidden, row))

    def body(start: Var, end: Var, at: Var, *mine: Var) -> Sequence[Var]:
        state = states.between(at, op.add(at, ints(1)))
        return choose(Visit(start, end, _log_probs(level, start, end, state), ints(0)), *mine)

    at = arange(scalar(states.count()))
    return [_rows(answers) for answers in _for_each((*level.bounds(block), at, *given), body)]


def _for_each(vectors: Sequence[Var], body: Callable[..., Sequence[Var]]) -> Sequence[Var]:
    """Stack what `body` makes of each element [1] of vectors [n]; n may be 0, as Scan's may not.

    spox builds a value in the innermost scope that uses it, so what only a body reads would be
    computed in every pass. The number of passes reads all vectors, which keeps them outside.
    """

    def one(i: Var, going: Var) -> list[Var]:
        return [yes(), *body(*(op.gather(x, i) for x in vectors))]

    return op.loop(scalar(op.min([length(x) for x in vectors])), body=one)


def _shared(
    level: LevelWeights, hidden: Var, row: Var, block: Var, choose: Choose, given: Sequence[Var]
) -> list[Var]:
    """Each distinct block once, its calls as the columns of one product."""
    blocks = _Distinct(*op.unique(block, sorted=1))
    batch = length(hidden)
    calls = _Distinct(*op.unique(op.add(op.mul(blocks.number, batch), row), sorted=1))
    by_block = _Distinct(*op.unique(op.div(calls.value, batch), sorted=1))
    states = level.states(op.gather(hidden, op.mod(calls.value, batch)))
    call = op.sub(calls.number, op.gather(by_block.first, blocks.number))
    # Reading the states' number here keeps them out of the body, see _for_each.
    others = between(by_block.first, ints(1), length(by_block.first))
    after = concat(others, states.count())
    table = _table(blocks)

    def body(start: Var, end: Var, first: Var, after: Var, call: Var, *ours: Var) -> Sequence[Var]:
        log_probs = _log_probs(level, start, end, states.between(first, after))
        return choose(Visit(start, end, log_probs, call), *ours)

    bounds = [*level.bounds(blocks.value), by_block.first, after]
    scanned = [*map(column, bounds), *(table.of(x) for x in (call, *given))]
    stacked = op.scan(scanned, body=body, num_scan_inputs=len(scanned))
    return [op.gather(_rows(answers), table.place) for answers in stacked]


def _log_probs(level: LevelWeights, start: Var, end: Var, states: States) -> Var:
    return op.log_softmax(logits(level.rows(start, end), states), axis=1)


@dataclass(frozen=True)
class _Table:
    """Pairs laid out by block, [d, W]; W is the most pairs that any block has."""

    shape: Var  # [2]
    place: Var  # [n] where each pair lies among d * W

    def of(self, by_pair: Var) -> Var:
        """[n] -> [d, W], zero where a block has fewer pairs."""
        empty = op.cast_like(full(op.reduce_prod(self.shape, keepdims=1), 0), by_pair)
        return op.reshape(op.scatter_elements(empty, self.place, by_pair), self.shape)


def _table(blocks: _Distinct) -> _Table:
    widest = vector(op.reduce_max(blocks.times))
    number, order = op.top_k(blocks.number, length(blocks.number), largest=0)
    first_pair = op.cumsum(blocks.times, integer(0), exclusive=1)
    rank = op.sub(arange(count(number)), op.gather(first_pair, number))
    place = op.scatter_elements(order, order, op.add(op.mul(number, widest), rank))
    return _Table(concat(length(blocks.value), widest), place)


def _rows(stacked: Var) -> Var:
    """[d, W, ...] -> [d * W, ...]."""
    return op.reshape(stacked, concat(ints(-1), op.shape(stacked, start=2)))
