"""top_k: the k likeliest targets, exactly, from as few blocks as can prove it.

A leaf is no likelier than its ancestors, so a block of the last level is worth opening only while
its parent's log p is at least the k-th best found so far. Each row opens its blocks in the order of
that bound, one a round; rows that open the same block in a round share its read. How far a row goes
depends on nothing but the row.

A row whose distribution is flat would open them all, one after the other, dearer than one pass over
the weights: after a few blocks the number still worth opening is known to be at most the number of
bounds not below the k-th best, and a row for which that is many is answered from its full
distribution, its `blocks` then being all of them.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .block_visits import Visit, visit_blocks
from .levels import LevelWeights, levels
from .log_probs import log_probs, row_log_probs
from .ops import (
    as_int,
    between,
    column,
    concat,
    count,
    full,
    integer,
    ints,
    length,
    pick,
    positions,
    real,
    scalar,
    vector,
)
from .top_k_merge import answer_anew, any_of, merge, put, widen
from .weights import Weights

_DENSE_K = 64  # k of more than one target in so many: answered from the full distribution
_AFFORDABLE = 16  # one block in so many is sure to be cheaper than the full distribution
_TRIAL = 128  # one block in so many is opened before a row may give up,
_LEAST_TRIAL = 4  # and at least so many


@dataclass(frozen=True)
class Limits:
    """How many blocks a row may open."""

    unlimited: Var  # scalar bool: exact answers only
    freely: Var  # scalar: so many blocks need no reason
    ranked: Var  # [1] how many blocks are put in order: one more than any row opens, or all


def top_k(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var, max_blocks: Var
) -> tuple[Var, ...]:
    """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B].

    max_blocks 0 means no limit. A limited row still opens blocks until it has k targets to answer.
    """
    if len(model.levels) == 1:
        return _dense(model, weights, hidden, k)
    limits = _limits(model, k, max_blocks)
    many = op.greater(op.mul(scalar(k), integer(_DENSE_K)), integer(model.num_targets))
    return tuple(
        op.if_(
            op.and_(limits.unlimited, many),
            then_branch=lambda: _dense(model, weights, hidden, k),
            else_branch=lambda: _best_first(model, weights, hidden, k, limits),
        )
    )


def _dense(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var
) -> tuple[Var, Var, Var, Var]:
    """From the full distribution: targets are in order there, so ties go to the lower one."""
    log_prob, target = op.top_k(log_probs(model, weights, hidden)[0], k)
    batch = length(hidden)
    return log_prob, target, full(batch, model.levels[-1].num_blocks), full(batch, True)


def _limits(model: HierarchicalSoftmax, k: Var, max_blocks: Var) -> Limits:
    blocks, most = model.levels[-1].num_blocks, scalar(max_blocks)
    unlimited = op.or_(op.equal(most, integer(0)), op.greater_or_equal(most, integer(blocks)))
    # A limited row that lacks k targets goes on; a block holds at least one unless all is padding.
    reach = op.add(op.add(most, scalar(k)), integer(_blocks_without_target(model)))
    affordable = max(1, blocks // _AFFORDABLE)
    ranked = op.add(op.where(unlimited, integer(affordable), reach), integer(1))
    trial = integer(min(affordable, max(_LEAST_TRIAL, blocks // _TRIAL)))
    return Limits(
        unlimited,
        freely=op.where(unlimited, trial, most),
        ranked=vector(op.min([ranked, integer(blocks)])),
    )


def _blocks_without_target(model: HierarchicalSoftmax) -> int:
    last = model.levels[-1]
    return last.num_blocks - len(np.unique(last.block_of_row[model.rows]))


def _best_first(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var, limits: Limits
) -> tuple[Var, ...]:
    inner = row_log_probs(model, weights, hidden, depth=len(model.levels) - 1)
    bounds, blocks = op.top_k(inner, limits.ranked)
    log_prob, target, opened, exact = _rounds(model, weights, hidden, k, limits, bounds, blocks)
    gave_up = op.and_(op.not_(exact), limits.unlimited)
    return answer_anew(
        lambda some: _dense(model, weights, some, k),
        hidden,
        gave_up,
        (log_prob, target, opened, exact),
    )


def _rounds(
    model: HierarchicalSoftmax,
    weights: Weights,
    hidden: Var,
    k: Var,
    limits: Limits,
    bounds: Var,
    blocks: Var,
) -> tuple[Var, Var, Var, Var]:
    """Open each row's blocks in order, one a round, until nothing unopened can matter."""

    def body(
        i: Var, going: Var, active: Var, exact: Var, opened: Var, log_prob: Var, target: Var
    ) -> list[Var]:
        row, done = positions(active), scalar(op.add(i, ints(1)))
        at = op.expand(i, op.shape(row))
        found = _open(model, weights, hidden, row, pick(blocks, row, at), k)
        found_log_prob = op.add(found[0], column(pick(bounds, row, at)))
        merged = merge(
            concat(op.gather(log_prob, row), found_log_prob, axis=1),
            concat(op.gather(target, row), found[1], axis=1),
            k,
        )
        log_prob, target = put((log_prob, target), row, merged)
        opened = op.add(opened, op.cast(active, to=np.int64))
        kth = op.reduce_min(log_prob, ints(1), keepdims=0)
        unproven = _unproven(model, bounds, done, kth)
        exact = op.or_(exact, op.and_(active, op.not_(unproven)))
        worth = _worth_going_on(limits, bounds, done, kth)
        active = op.and_(active, op.and_(unproven, worth))
        return [any_of(active), active, exact, opened, log_prob, target]

    batch = length(bounds)  # reading bounds here keeps them out of the body, see visits.py
    answers = concat(batch, k)
    start = [
        full(batch, True),
        full(batch, False),
        full(batch, 0),
        full(answers, -np.inf),
        full(answers, model.num_targets),
    ]
    loop = op.loop(cond=any_of(start[0]), v_initial=start, body=body)
    _, exact, opened, log_prob, target = loop
    return log_prob, target, opened, exact


def _unproven(model: HierarchicalSoftmax, bounds: Var, opened: Var, kth: Var) -> Var:
    """[B] whether an unopened block might still hold one of the k best, or tie with the last."""
    more = op.less(opened, integer(model.levels[-1].num_blocks))
    bound = op.gather(bounds, op.min([opened, _last(bounds)]), axis=1)
    return op.and_(more, op.greater_or_equal(bound, kth))


def _worth_going_on(limits: Limits, bounds: Var, opened: Var, kth: Var) -> Var:
    """[B] whether a row may open another block."""
    last = _last(bounds)
    few = op.and_(limits.unlimited, op.less(op.gather(bounds, last, axis=1), kth))
    missing = op.and_(op.equal(kth, real(-np.inf)), op.less(opened, last))
    return op.or_(op.less(opened, limits.freely), op.or_(few, missing))


def _open(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, block: Var, k: Var
) -> tuple[Var, ...]:
    """The k best of one block a row: (log p within the block, target), [rows, k]."""
    level = levels(model, weights)[-1]

    def choose(visit: Visit, call: Var) -> tuple[Var, Var]:
        best, place = _best(level, weights, visit, k)
        target = op.gather(weights["row_target"], place) if "row_target" in weights else place
        return (
            op.gather(widen(best, k, -np.inf), call),
            op.gather(widen(target, k, model.num_targets), call),
        )

    return visit_blocks(level, hidden, row, block, lambda call: (call,), choose)


def _best(level: LevelWeights, weights: Weights, visit: Visit, k: Var) -> tuple[Var, Var]:
    """The k best rows of a block for each call, ties to the lower target: (log p, row)."""
    start, end = visit.bounds()
    scores, alive = visit.by_call(), level.alive(start, end)
    scores = scores if alive is None else op.add(scores, alive)
    most = op.min([k, length(scores, axis=1)])
    if "row_order" not in weights:
        best, position = op.top_k(scores, most)
        return best, op.add(position, start)
    order = as_int(between(weights["row_order"], start, end))
    best, place = op.top_k(op.gather(scores, op.sub(order, start), axis=1), most)
    return best, op.gather(order, place)


def _last(bounds: Var) -> Var:
    return op.sub(count(bounds, axis=1), integer(1))
